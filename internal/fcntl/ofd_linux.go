package fcntl

import (
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	none      = 0
	getlkOFD  = unix.F_OFD_GETLK
	setlkOFD  = unix.F_OFD_SETLK
	setlkwOFD = unix.F_OFD_SETLKW
)

// fcntl is fcntl(2). Quick means that the call is known not to wait for others. Then the runtime is not
// told of it, else it would wake its monitor if the process was idle: for one who tries the lock and
// goes to sleep again that costs more than all else.
func fcntl(fd, cmd int, lk *unix.Flock_t, quick bool) error {
	if !quick || strconv.IntSize < 64 { // the number and the structure are others there
		return unix.FcntlFlock(uintptr(fd), cmd, lk)
	}
	_, _, errno := unix.RawSyscall(unix.SYS_FCNTL, uintptr(fd), uintptr(cmd), uintptr(unsafe.Pointer(lk)))
	if errno != 0 {
		return errno
	}
	return nil
}
