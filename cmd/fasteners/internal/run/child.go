package run

import (
	"os"
	"os/exec"
	"sync"
)

// A child is the command that a job runs. What differs between systems is in
// child_*.go.
type child struct {
	cmd       *exec.Cmd
	inherited bool // it has the locks

	// On Unix:
	pid     int
	changed chan os.Signal // receives when a child has changed its state
	mu      sync.Mutex     // protects ended
	ended   bool
}

func (j *job) newChild() *child {
	cmd := shellCommand(j.script)
	if j.script == "" {
		cmd = exec.Command(j.command[0], j.command[1:]...)
	}
	return &child{cmd: cmd}
}

func (c *child) String() string { return c.cmd.Args[0] }
