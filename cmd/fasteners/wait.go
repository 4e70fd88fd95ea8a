package main

import (
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/go-fasteners/fasteners"
)

// A waitNotice tells for whom a wait is. On a terminal it is one line, which is kept up to date and disappears
// with the end of the wait.
type waitNotice struct {
	j    *job
	hold *hold

	mu     sync.Mutex
	ended  bool
	ticker *time.Ticker // on a terminal
}

// tell is called after the first second of a wait, and again at growing distances.
func (n *waitNotice) tell(holders []fasteners.Holder) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.ended || n.ticker != nil:
	case !inPlace():
		n.j.warn("%s", n.text(holders))
	default:
		n.ticker = time.NewTicker(time.Second)
		n.show(holders)
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
		n.show(holders)
		n.mu.Unlock()
	}
}

const eraseLine = "\r\x1b[K"

// show replaces the line of the terminal. A line that is too long could not be replaced.
func (n *waitNotice) show(holders []fasteners.Holder) {
	text := []rune(n.j.program + ": " + n.text(holders))
	if width, _, err := term.GetSize(int(os.Stderr.Fd())); err == nil && width > 1 && len(text) >= width {
		text = text[:width-1]
	}
	fmt.Fprint(n.j.stderr, eraseLine+string(text))
}

func (n *waitNotice) text(holders []fasteners.Holder) string {
	return fmt.Sprintf("waiting for %s, held by %s", n.hold.path, describe(holders))
}

func (n *waitNotice) end() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ended = true
	if n.ticker != nil {
		n.ticker.Stop()
		fmt.Fprint(n.j.stderr, eraseLine)
	}
}

// inPlace reports whether standard error is a terminal on which a line can be replaced.
func inPlace() bool {
	return os.Getenv("TERM") != "dumb" && os.Getenv("NO_COLOR") == "" && term.IsTerminal(int(os.Stderr.Fd()))
}
