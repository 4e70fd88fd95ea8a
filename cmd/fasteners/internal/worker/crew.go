package worker

import (
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/cli"
)

// A Crew is all workers that use one lock, as seen by the process that has
// started them.
type Crew struct {
	Dir     string // is new, and removed at the end
	Lock    string // the path of the lock file in it
	Board   *Board
	Workers []*Process // by number; nil before the first start
}

// NewCrew creates a directory in parent, and the board of a crew which has no
// processes yet. Each worker has a number of seats. From now on, the program
// does not end before it has removed the directory because no process reads
// what it prints.
func NewCrew(parent, prefix string, workers, seats int) (*Crew, error) {
	signal.Ignore(syscall.SIGPIPE)
	if parent == "" { // which means another directory to MkdirTemp
		return nil, cli.UsageError("the name of the directory is empty")
	}
	parent, err := filepath.Abs(parent)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(parent, prefix)
	if err != nil {
		return nil, err
	}
	board, err := createBoard(workers, seats)
	if err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	return &Crew{dir, filepath.Join(dir, "lock"), board, make([]*Process, workers)}, nil
}

// Start starts the worker with that number, or the next process for it.
func (c *Crew) Start(number int, cmd *exec.Cmd) (*Process, error) {
	c.Board.admit(number)
	p, err := start(cmd)
	if err != nil {
		return nil, err
	}
	p.Number = number
	c.Board.marks[number].pid.Store(uint64(p.PID()))
	c.Workers[number] = p
	return p, nil
}

// Place returns the place of the worker with that number.
func (c *Crew) Place(number int) Place {
	return Place{
		Lock:    c.Lock,
		Board:   c.Board.path,
		Workers: len(c.Workers),
		Seats:   c.Board.seats,
		Number:  number,
		Process: c.Board.marks[number].incarnation.Load(),
	}
}

// Kill kills a worker, and waits until it is gone. The board has to know first.
func (c *Crew) Kill(number int) {
	p := c.Workers[number]
	c.Board.condemn(number)
	_ = p.cmd.Process.Kill()
	<-p.Exited
}

// End kills the workers and removes the board.
func (c *Crew) End() {
	for i, p := range c.Workers {
		if p != nil {
			c.Kill(i)
		}
	}
	_ = os.Remove(c.Board.path)
}

// Close is End, and removes the directory.
func (c *Crew) Close() error {
	c.End()
	return os.RemoveAll(c.Dir)
}
