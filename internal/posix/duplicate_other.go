//go:build unix && !linux

package posix

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Duplicate returns another descriptor of the same open file description, which is close-on-exec
// and not below [FirstFD].
func Duplicate(fd uintptr) (int, error) {
	syscall.ForkLock.RLock() // AIX has no F_DUPFD_CLOEXEC
	defer syscall.ForkLock.RUnlock()
	own, err := unix.FcntlInt(fd, unix.F_DUPFD, FirstFD)
	if err == nil {
		unix.CloseOnExec(own)
	}
	return own, err
}
