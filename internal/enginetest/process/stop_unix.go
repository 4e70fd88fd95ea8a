//go:build unix

package process

import "syscall"

// Stop stops the process until Continue is called.
func (p *Process) Stop() error { return p.cmd.Process.Signal(syscall.SIGSTOP) }

// Continue continues a process that was stopped.
func (p *Process) Continue() error { return p.cmd.Process.Signal(syscall.SIGCONT) }
