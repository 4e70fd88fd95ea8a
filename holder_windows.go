package fasteners

import (
	"os"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/go-fasteners/fasteners/internal/locktable"
)

// Holder returns none: the system tells only which processes have the file open.
func (f *file) Holder() (locktable.Holder, bool) { return locktable.Holder{}, false }

// OwnedByProcess returns false: locks belong to the handle.
func (f *file) OwnedByProcess() bool { return false }

// Holders returns the other processes that have the file open, or none if the system does not
// tell that (Wine 8 does not). To find out by locking the file could make a try of another
// process fail.
func (*system) Holders(id locktable.ID, opened locktable.File) ([]locktable.Holder, error) {
	f, ok := opened.(*file)
	if !ok {
		return nil, nil
	}
	var holders []locktable.Holder
	for _, pid := range f.users() {
		if pid != os.Getpid() {
			holders = append(holders, locktable.Holder{PID: pid, Mode: locktable.Exclusive, Opened: true})
		}
	}
	return holders, nil
}

var ntQueryInformationFile = windows.NewLazySystemDLL("ntdll.dll").NewProc("NtQueryInformationFile")

// users returns the processes that have the file open.
func (f *file) users() (pids []int) {
	const fileProcessIdsUsingFileInformation = 47 // FILE_INFORMATION_CLASS, since Windows Vista
	var info struct {
		n    uint32
		pids [1000]uintptr
	}
	var iosb windows.IO_STATUS_BLOCK
	status, _, _ := ntQueryInformationFile.Call(uintptr(f.handle), uintptr(unsafe.Pointer(&iosb)),
		uintptr(unsafe.Pointer(&info)), unsafe.Sizeof(info), fileProcessIdsUsingFileInformation)
	if status != 0 {
		return nil
	}
	for _, pid := range info.pids[:min(int(info.n), len(info.pids))] {
		pids = append(pids, int(pid))
	}
	return pids
}
