package posix

import "golang.org/x/sys/unix"

// Duplicate returns another descriptor of the same open file description, which is close-on-exec
// and not below [FirstFD].
func Duplicate(fd uintptr) (int, error) {
	return unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, FirstFD)
}
