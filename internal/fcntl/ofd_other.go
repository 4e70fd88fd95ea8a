//go:build unix && !linux

package fcntl

import "golang.org/x/sys/unix"

// No command has this number: F_DUPFD, which is 0, is none that locks.
const (
	none      = 0
	getlkOFD  = none
	setlkOFD  = none
	setlkwOFD = none
)

// fcntl is fcntl(2). Quick means that the call is known not to wait for others.
func fcntl(fd, cmd int, lk *unix.Flock_t, quick bool) error {
	return unix.FcntlFlock(uintptr(fd), cmd, lk)
}
