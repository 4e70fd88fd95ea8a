//go:build unix

package run

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/cli"
)

func shellCommand(script string) *exec.Cmd {
	shell := os.Getenv("SHELL")
	if shell == "" {
		shell = "/bin/sh"
	}
	return exec.Command(shell, "-c", script)
}

// inherit lets the child inherit a file under the number that it has, which is
// not that of a file that the child inherits from somebody else.
func (c *child) inherit(f *os.File) error {
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETFD, 0)
	inheritedFiles = append(inheritedFiles, f)
	return err
}

var inheritedFiles []*os.File // that are inherited, and so must not be closed by a finalizer

// executed returns the path and the arguments of the command, or the error of
// looking for it. As in a shell and for execvp(3), it may be in the current
// directory if PATH says so.
func (c *child) executed() (path string, args []string, err error) {
	if c.cmd.Err != nil && !errors.Is(c.cmd.Err, exec.ErrDot) {
		return "", nil, c.cmd.Err
	}
	return c.cmd.Path, c.cmd.Args, nil
}

// asScript returns the path and the arguments of the shell that runs a file
// which the system cannot execute because it does not tell by what: execvp(3)
// and shells do this, too.
func asScript(path string, args []string) (shell string, shellArgs []string) {
	return "/bin/sh", append([]string{"sh", path}, args[1:]...)
}

// replace executes the command in this process. It returns only if that fails.
func (c *child) replace() error {
	path, args, err := c.executed()
	if err == nil {
		err = syscall.Exec(path, args, os.Environ())
	}
	if err == unix.ENOEXEC {
		path, args = asScript(path, args)
		err = syscall.Exec(path, args, os.Environ())
	}
	return err
}

// start does without [exec.Cmd.Start], which finds out first what the system
// can do, by another process: that takes longer than the rest of a short
// command.
func (c *child) start() error {
	path, args, err := c.executed()
	if err != nil {
		return err
	}
	c.changed = make(chan os.Signal, 1)
	signal.Notify(c.changed, unix.SIGCHLD)
	attr := &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: c.cmd.SysProcAttr}
	c.pid, err = syscall.ForkExec(path, args, attr)
	if err == unix.ENOEXEC {
		path, args = asScript(path, args)
		c.pid, err = syscall.ForkExec(path, args, attr)
	}
	return err
}

// wait waits for the child and returns its exit status, as a shell has it.
func (c *child) wait() int {
	for range c.changed {
		if status, ended := c.poll(); ended {
			return status
		}
	}
	panic("unreachable")
}

// poll keeps mu, so that no signal is sent to another process that has got the
// ID of the child.
func (c *child) poll() (status int, ended bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var w unix.WaitStatus
	pid, err := unix.Wait4(c.pid, &w, unix.WNOHANG, nil)
	for err == unix.EINTR {
		pid, err = unix.Wait4(c.pid, &w, unix.WNOHANG, nil)
	}
	if pid != c.pid {
		return 0, false
	}
	c.ended = true
	if w.Signaled() {
		return cli.ExitSignalBase + int(w.Signal()), true
	}
	return w.ExitStatus(), true
}

// signal sends the child a signal unless it has ended.
func (c *child) signal(s unix.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		_ = unix.Kill(c.pid, s)
	}
}

func (c *child) kill()      { c.signal(unix.SIGKILL) }
func (c *child) terminate() { c.signal(unix.SIGTERM) }

// signals returns those that are passed on. What this process ignores, so does
// the child; but the runtime of Go lets it go on to ignore only SIGHUP and
// SIGINT of these.
func (c *child) signals() (all []os.Signal) {
	for _, s := range []os.Signal{
		unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM,
	} {
		if !signal.Ignored(s) {
			all = append(all, s)
		}
	}
	return all
}

// passOn passes a signal on. The terminal sends its own to the whole process
// group in front, and so to the child, unless that has left the group.
func (c *child) passOn(s os.Signal) {
	if (s == unix.SIGINT || s == unix.SIGQUIT) && inForeground() && c.inOurGroup() {
		return
	}
	c.signal(s.(syscall.Signal))
}

// inForeground reports whether this process is in the process group to which
// its terminal sends signals.
func inForeground() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

func (c *child) inOurGroup() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return false
	}
	group, err := unix.Getpgid(c.pid)
	return err == nil && group == unix.Getpgrp()
}

// endsProcess reports whether the signal asks a process to end.
func endsProcess(s os.Signal) bool {
	return s == unix.SIGHUP || s == unix.SIGINT || s == unix.SIGQUIT || s == unix.SIGTERM
}

func checkDescriptor(fd int) error {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err
}
