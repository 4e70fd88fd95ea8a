package stress

import (
	"bufio"
	"encoding/json"
	"os"
	"runtime"
	"sync"

	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/worker"
)

// An order tells a worker what to do. It is the first message to it.
type order struct {
	worker.Place
	Seed     uint64 `json:"seed"`
	Removals bool   `json:"removals"` // of the lock file

	Layout *worker.Layout `json:"layout,omitempty"` // for a worker that is no Go program
}

// A message is what a worker tells: a violation, or a dump of its goroutines,
// which is what every later message to it asks for.
type message struct {
	Violation *violation `json:",omitempty"`
	Dump      string     `json:",omitempty"`
}

// A violation is something that a lock must not do.
type violation struct {
	What  string            `json:"what"`
	Holds []worker.Interval `json:"holds,omitempty"` // that overlap, or the one that was found to be wrong
	Dump  string            `json:"dump,omitempty"`  // of the goroutines of a process that does not go on
}

// A generator is a worker: its goroutines put load on the lock.
type generator struct {
	order  order
	board  *worker.Board
	shared worker.Lock
	mu     sync.Mutex // protects out
	out    *json.Encoder
}

// generate puts load on the lock until the run ends, as the order from standard
// input says.
func generate() error {
	worker.IgnoreTerminal()
	in := bufio.NewScanner(os.Stdin)
	if !in.Scan() {
		return in.Err()
	}
	g := &generator{out: json.NewEncoder(os.Stdout)}
	if err := json.Unmarshal(in.Bytes(), &g.order); err != nil {
		return err
	}
	var err error
	if g.board, err = g.order.OpenBoard(); err != nil {
		return err
	}
	if g.shared, err = g.order.NewLock(true); err != nil {
		return err
	}
	go func() {
		for in.Scan() {
			g.tell(message{Dump: allStacks()})
		}
		os.Exit(0) // the process that has started this one is gone
	}()
	var group sync.WaitGroup
	for i := range g.order.Seats {
		group.Go(g.newClient(i).run)
	}
	group.Wait()
	return nil
}

func (g *generator) tell(m message) {
	g.mu.Lock()
	defer g.mu.Unlock()
	_ = g.out.Encode(m)
}

func allStacks() string {
	stacks := make([]byte, 256<<10)
	return string(stacks[:runtime.Stack(stacks, true)])
}
