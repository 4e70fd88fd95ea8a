package run

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"
)

func shellCommand(script string) *exec.Cmd {
	shell := os.Getenv("ComSpec")
	if shell == "" {
		shell = "cmd.exe"
	}
	cmd := exec.Command(shell)
	// The quotes around the whole are those that /s removes (cmd /?).
	cmd.SysProcAttr = &syscall.SysProcAttr{CmdLine: `cmd /d /s /c "` + script + `"`}
	return cmd
}

func (c *child) inherit(*os.File) error { return errors.ErrUnsupported }

func (c *child) replace() error { return errors.ErrUnsupported }

// jobObject is open as long as the process: the system closes it when that
// ends, and ends all processes in it.
var jobObject windows.Handle

// dieWithParent puts this process into a job, which processes that it starts
// are then in as well (CreateJobObject).
func (c *child) dieWithParent() error {
	job, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return err
	}
	if err := limitJob(job, windows.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE); err != nil {
		return err
	}
	jobObject = job
	return windows.AssignProcessToJobObject(job, windows.CurrentProcess())
}

func limitJob(job windows.Handle, flags uint32) error {
	var info windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION
	info.BasicLimitInformation.LimitFlags = flags
	_, err := windows.SetInformationJobObject(job, windows.JobObjectExtendedLimitInformation,
		uintptr(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info)))
	return err
}

func (c *child) start() error {
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return c.cmd.Start()
}

// wait waits for the child and returns its exit status. It lets what the child
// has left running go on: this process ends in order.
func (c *child) wait() int {
	_ = c.cmd.Wait()
	if jobObject != 0 {
		_ = limitJob(jobObject, 0)
	}
	return c.cmd.ProcessState.ExitCode()
}

func (c *child) kill() { _ = c.cmd.Process.Kill() }

// signals are those of the console, which sends them to the child, too.
func (c *child) signals() []os.Signal { return []os.Signal{os.Interrupt} }

func (c *child) passOn(os.Signal) {}

// terminate does nothing: the system has no request to end that every process
// understands.
func (c *child) terminate() {}

func endsProcess(s os.Signal) bool { return s == os.Interrupt }

func checkDescriptor(int) error { return errors.ErrUnsupported }
