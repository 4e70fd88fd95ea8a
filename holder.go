package fasteners

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-fasteners/fasteners/internal/locktable"
	"github.com/go-fasteners/fasteners/internal/printable"
	"github.com/go-fasteners/fasteners/internal/process"
)

// A Holder is a process that holds a lock or waits for it; of this process, a goroutine that
// waits. All that it says is a hint, and may be out of date when it is returned.
//
// Command is what the system says, byte for byte. The user who runs the program has chosen it, so
// it can contain what controls a terminal or forges a line of a log. String is safe to print.
type Holder struct {
	PID     int       // process ID; 0 if unknown, as of another machine or PID namespace
	Command string    // name of the program that the process runs, see below; "" if unknown
	Shared  bool      // holds a read lock, or waits for one
	Waiting bool      // does not hold the lock, but waits for it
	Since   time.Time // start of the hold or wait, for others in whole seconds; zero if unknown

	// Opened means that the process is only known to have the lock file open. It may hold the
	// lock or wait for it. This is all that Windows tells.
	Opened bool

	// Caller means that the lock is held by a function that [WithLock] or one of its siblings
	// has called, and that waits for it now: it would wait forever, since locks are not
	// reentrant.
	Caller bool
}

// String describes the holder, as in "process 4711 (backup) for 12s", in one line of printable
// characters: others are written as in Go, and so is a command with parentheses, in quotes.
func (h Holder) String() string {
	var s strings.Builder
	switch {
	case h.Caller:
		return "the caller: locks are not reentrant"
	case h.PID == os.Getpid():
		s.WriteString("this process")
	case h.PID != 0:
		fmt.Fprintf(&s, "process %d", h.PID)
	default:
		s.WriteString("an unknown process")
	}
	if h.Command != "" && h.PID != os.Getpid() {
		command := printable.Text(h.Command)
		if strings.ContainsAny(command, "()") { // it could look like what follows it
			command = strconv.QuoteToGraphic(h.Command)
		}
		fmt.Fprintf(&s, " (%s)", command)
	}
	switch {
	case h.Opened:
		s.WriteString(", which has the file open,")
	case h.Waiting:
		s.WriteString(", which waits,")
	}
	if d := time.Since(h.Since); !h.Since.IsZero() && d >= time.Second {
		fmt.Fprintf(&s, " for %v", d.Truncate(time.Second))
	}
	return strings.TrimSuffix(s.String(), ",")
}

func describe(holders []Holder) string {
	if len(holders) == 0 {
		return "an unknown process"
	}
	const most = 3
	var names []string
	for _, h := range holders[:min(len(holders), most)] {
		names = append(names, h.String())
	}
	if n := len(holders) - most; n > 0 {
		names = append(names, fmt.Sprintf("%d more", n))
	}
	return strings.Join(names, ", ")
}

// holdersFor converts what the table has found.
func holdersFor(ctx context.Context, id locktable.ID, found []locktable.Holder) []Holder {
	var holders []Holder
	for _, f := range found {
		h := Holder{
			PID:     f.PID,
			Shared:  f.Mode == locktable.Shared,
			Waiting: f.Waiting,
			Since:   f.Since,
			Opened:  f.Opened,
		}
		var at time.Time
		if f.Unchecked {
			at = f.Since
		}
		if h.PID != 0 {
			// If it does not exist, it has left the lock to one that has inherited the descriptor.
			if p := processes.of(h.PID, at); p.existed {
				h.Command = p.command
			} else {
				h.PID = 0
			}
		}
		h.Caller = h.PID == os.Getpid() && !h.Waiting && isHeldByCaller(ctx, id)
		holders = append(holders, h)
	}
	return holders
}

// processes remembers the last process for a moment: thousands of goroutines can give up at the
// same time.
var processes processCache

type processCache struct {
	mu    sync.Mutex
	last  processInfo
	asked time.Time
}

type processInfo struct {
	pid     int
	at      time.Time
	existed bool // at that time, as package process defines it
	command string
}

func (c *processCache) of(pid int, at time.Time) processInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last.pid != pid || !c.last.at.Equal(at) || time.Since(c.asked) > 100*time.Millisecond {
		c.last = processInfo{pid, at, process.Existed(pid, at), process.Command(pid)}
		c.asked = time.Now()
	}
	return c.last
}
