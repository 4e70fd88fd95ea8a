//go:build unix && !linux

package process

import "golang.org/x/sys/unix"

func isThere(pid int) bool { return unix.Kill(pid, 0) != unix.ESRCH }
