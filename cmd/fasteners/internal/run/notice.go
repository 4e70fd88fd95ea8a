package run

import (
	"fmt"
	"sync"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/cli"
)

// A waitNotice tells for whom a wait is. On a terminal that is one line, which
// is kept up to date and disappears with the end of the wait.
type waitNotice struct {
	program string
	hold    *hold

	mu     sync.Mutex
	line   *cli.ProgressLine
	ended  bool
	ticker *time.Ticker // on a terminal
}

// tell is called after the first second of a wait, and again at growing distances.
func (n *waitNotice) tell(holders []fasteners.Holder) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ended || n.ticker != nil {
		return
	}
	n.printLocked(holders)
	if n.line.InPlace {
		n.ticker = time.NewTicker(time.Second)
		go n.refresh()
	}
}

func (n *waitNotice) refresh() {
	for range n.ticker.C {
		holders, _ := n.hold.lock.Holders()
		n.mu.Lock()
		if n.ended {
			n.mu.Unlock()
			return
		}
		n.printLocked(holders)
		n.mu.Unlock()
	}
}

func (n *waitNotice) printLocked(holders []fasteners.Holder) {
	n.line.Print(fmt.Sprintf("%s: waiting for %s, held by %s",
		n.program, cli.Printable(n.hold.path), cli.DescribeHolders(holders)))
}

func (n *waitNotice) end() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ended = true
	if n.ticker != nil {
		n.ticker.Stop()
	}
	n.line.Clear()
}
