package fcntl

import "golang.org/x/sys/unix"

const (
	none      = 0
	getlkOFD  = unix.F_OFD_GETLK
	setlkOFD  = unix.F_OFD_SETLK
	setlkwOFD = unix.F_OFD_SETLKW
)
