//go:build !android

package stat

import (
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Path returns the file that path names. Its error is an errno.
//
// Of the calls that do that only statx(2) is the same on all architectures. It is used in such a way that
// it does what stat(2) does. Android kills programs that use it.
func Path(path string) (File, error) {
	var name [128]byte
	if len(path) >= len(name) || strings.IndexByte(path, 0) >= 0 {
		return byStat(path)
	}
	copy(name[:], path)
	var st unix.Statx_t
	cwd := unix.AT_FDCWD
	_, _, errno := unix.Syscall6(unix.SYS_STATX, uintptr(cwd), uintptr(unsafe.Pointer(&name)),
		unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS, uintptr(unsafe.Pointer(&st)), 0)
	switch errno {
	case 0:
		return File{Dev: unix.Mkdev(st.Dev_major, st.Dev_minor), Ino: st.Ino, Mode: uint32(st.Mode)}, nil
	case unix.ENOENT:
		return File{}, errno
	}
	return byStat(path) // which knows better, also where statx is missing or forbidden
}
