package fasteners

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/go-fasteners/fasteners/internal/process"
	"github.com/go-fasteners/fasteners/internal/table"
)

// A Holder is a process that holds a lock or waits for it; of this process, a goroutine that waits. All
// that it says is a hint, and may be out of date when it is returned.
type Holder struct {
	PID     int       // process ID; 0 if unknown, as of another machine or PID namespace
	Command string    // name of the program that the process runs; "" if unknown
	Shared  bool      // holds a read lock, or waits for one
	Waiting bool      // does not hold the lock, but waits for it
	Since   time.Time // start of the hold or of the wait, in whole seconds for other processes; zero if unknown

	// Opened means that the process is only known to have the lock file open. It may hold the lock or wait
	// for it. This is all that Windows tells.
	Opened bool

	// Caller means that the lock is held by a function that [WithLock] or one of its siblings has called,
	// and that waits for it now: it would wait forever, since locks are not reentrant.
	Caller bool
}

// String describes the holder, as in "process 4711 (backup) for 12s".
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
		fmt.Fprintf(&s, " (%s)", h.Command)
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

// A HeldError is wrapped by the error of an acquire whose wait for the lock was ended by its context or by
// [WithTimeout]: somebody else has held the lock. An error of the function that [WithLock] calls does not
// wrap one, unless it is from a wait for another lock.
type HeldError struct {
	// Holders are those who held the lock, or some of them, as far as they could be found out without
	// delay. There may be none.
	Holders []Holder

	// Err is the error of the context, and wraps its cause, too: see [context.Cause].
	Err error
}

func (e *HeldError) Error() string {
	return "held by " + describe(e.Holders) + ": " + e.Err.Error()
}

// Unwrap returns e.Err.
func (e *HeldError) Unwrap() error { return e.Err }

// Timeout reports whether a deadline or [WithTimeout] has ended the wait, for [os.IsTimeout].
func (e *HeldError) Timeout() bool { return errors.Is(e.Err, context.DeadlineExceeded) }

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

// holders returns the holders of the lock, and if waiters is true, those that wait for it, for a caller with
// that context.
func (h *handle) holders(ctx context.Context, waiters bool) ([]Holder, error) {
	err := h.validate(ctx)
	if err != nil {
		return nil, h.pathError("holders", err)
	}
	id, found, err := h.options.table.Holders(h.path(), waiters)
	return holdersFor(ctx, id, found), h.pathError("holders", err)
}

// holdersFor converts what the table has found.
func holdersFor(ctx context.Context, id table.ID, found []table.Holder) []Holder {
	var holders []Holder
	for _, f := range found {
		h := Holder{PID: f.PID, Shared: f.Mode == table.Shared, Waiting: f.Waiting, Since: f.Since, Opened: f.Opened}
		own := h.PID == os.Getpid()
		// A process that is not there any more has left the lock to a child, which has inherited the
		// descriptor.
		if !own && h.PID != 0 && !process.Exists(h.PID) {
			h.PID = 0
		}
		if h.PID != 0 {
			h.Command = commands.of(h.PID)
		}
		h.Caller = own && !h.Waiting && heldBy(ctx, id)
		holders = append(holders, h)
	}
	return holders
}

// waitError returns the error of an acquire as its caller sees it.
//
//go:noinline
func waitError(ctx context.Context, err error) error {
	if err == nil || ctx == nil || ctx.Err() == nil {
		return err
	}
	var wait *table.WaitError
	switch {
	case err == ctx.Err():
		return withCause(ctx, err)
	case errors.As(err, &wait):
		return &HeldError{Holders: holdersFor(ctx, wait.ID, wait.Holders), Err: withCause(ctx, wait.Err)}
	}
	return err
}

// withCause makes err, which is that of ctx, wrap the cause of ctx, too.
func withCause(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if cause == nil || errors.Is(err, cause) {
		return err
	}
	return &causedError{err, cause}
}

// A causedError is the error of a context with its cause.
type causedError struct{ err, cause error }

func (e *causedError) Error() string   { return e.err.Error() + ": " + e.cause.Error() }
func (e *causedError) Unwrap() []error { return []error{e.err, e.cause} }
func (e *causedError) Timeout() bool   { return errors.Is(e.err, context.DeadlineExceeded) }

// commands remembers the last command for a moment: thousands of goroutines can give up at the same time.
var commands commandCache

type commandCache struct {
	mu   sync.Mutex
	pid  int
	name string
	at   time.Time
}

func (c *commandCache) of(pid int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pid != pid || time.Since(c.at) > 100*time.Millisecond {
		c.pid, c.name, c.at = pid, process.Command(pid), time.Now()
	}
	return c.name
}
