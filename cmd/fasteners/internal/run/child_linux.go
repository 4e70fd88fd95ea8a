package run

import (
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// dieWithParent makes the kernel kill the child when the thread that starts it
// ends (prctl(2), PR_SET_PDEATHSIG). This one lasts as long as the process.
func (c *child) dieWithParent() error {
	runtime.LockOSThread()
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return nil
}

// unlockDescriptor unlocks whatever the open file description has locked.
func unlockDescriptor(fd int) error {
	return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK})
}
