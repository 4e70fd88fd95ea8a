//go:build unix && !linux

package fcntl

// No command has this number: F_DUPFD, which is 0, is none that locks.
const (
	none      = 0
	getlkOFD  = none
	setlkOFD  = none
	setlkwOFD = none
)
