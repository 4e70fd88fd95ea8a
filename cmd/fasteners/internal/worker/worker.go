// Package worker has the worker processes that use a lock for the commands
// check and stress, and the board on which the goroutines of these processes
// publish when they hold the lock, and find out that another one holds it, too.
package worker

import (
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// The commands start this program again, as their workers. A worker has the
// same arguments and workerVar in its environment. It reads what to do from its
// standard input, as JSON, and ends when that ends: so no worker outlives the
// process that has started it, however that ends.
const workerVar = "FASTENERS_WORKER"

// Is reports whether this process is a worker.
func Is() bool { return os.Getenv(workerVar) != "" }

// IgnoreTerminal lets a worker go on after signals that the terminal sends to
// all of its processes. The one that has started the worker gets them, too, and
// ends the worker when it is time.
func IgnoreTerminal() { signal.Ignore(os.Interrupt, syscall.SIGHUP) }

// Command returns a command that starts this program with the given arguments.
func Command(args ...string) (*exec.Cmd, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return exec.Command(program, args...), nil
}

// A Place is what a worker has to know of its crew.
type Place struct {
	Lock    string `json:"lock"`    // the path of the lock file
	Board   string `json:"board"`   // the path of the board
	Workers int    `json:"workers"` // of the board
	Seats   int    `json:"seats"`   // of the board
	Number  int    `json:"number"`  // of the worker
	Process uint64 `json:"process"` // the incarnation of the worker
}

// OpenBoard opens the board.
func (p *Place) OpenBoard() (*Board, error) { return openBoard(p.Board, p.Workers, p.Seats) }
