package worker

import (
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

// mapShared maps the file into the memory that all processes which do so share.
func mapShared(f *os.File, size int) ([]byte, error) {
	m, err := windows.CreateFileMapping(windows.Handle(f.Fd()), nil, windows.PAGE_READWRITE,
		0, uint32(size), nil)
	if err != nil {
		return nil, os.NewSyscallError("CreateFileMapping", err)
	}
	defer windows.CloseHandle(m) // the view keeps it
	const access = windows.FILE_MAP_READ | windows.FILE_MAP_WRITE
	view, err := windows.MapViewOfFile(m, access, 0, 0, uintptr(size))
	if err != nil {
		return nil, os.NewSyscallError("MapViewOfFile", err)
	}
	// The address is that of memory which the garbage collector does not know;
	// vet cannot see that.
	return unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&view))), size), nil
}
