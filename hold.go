package fasteners

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/go-fasteners/fasteners/internal/table"
)

// Hold acquires the lock for a [ContextLocker].
func (l *InterProcessLock) Hold(ctx context.Context) (held context.Context, release func() error, err error) {
	return l.hold(ctx, table.Exclusive, &l.holds)
}

// HoldRead acquires the lock for reading, for a [ContextReaderWriterLocker].
func (l *InterProcessReaderWriterLock) HoldRead(ctx context.Context) (held context.Context, release func() error, err error) {
	return l.hold(ctx, table.Shared, &l.readers)
}

// HoldWrite acquires the lock for writing, for a [ContextReaderWriterLocker].
func (l *InterProcessReaderWriterLock) HoldWrite(ctx context.Context) (held context.Context, release func() error, err error) {
	return l.hold(ctx, table.Exclusive, &l.writers)
}

func (h *handle) hold(ctx context.Context, mode table.Mode, to *holds) (context.Context, func() error, error) {
	c := &heldContext{lazyContext: lazyContext{Context: ctx}, handle: h}
	if err := h.acquire(ctx, mode, to, c); err != nil {
		return nil, nil, err
	}
	return c, c.release, nil
}

// A heldContext is the context of one hold of a file lock. As soon as somebody asks whether it is done, it
// watches the path.
type heldContext struct {
	lazyContext // of the one that the lock was acquired with
	handle      *handle
	hold        table.Hold
	holds       *holds // the list that has it; handle.mu protects this
	released    atomic.Bool

	// mu protects these, of the context that was made.
	cancel   context.CancelCauseFunc
	timer    *time.Timer
	interval time.Duration
}

// The path is looked at as often as for those that wait: see internal/table/recheck.go.
const (
	firstLook = 8 * time.Millisecond
	maxLook   = time.Second
)

func (c *heldContext) String() string        { return fmt.Sprintf("%v.held", c.Context) }
func (c *heldContext) Done() <-chan struct{} { return c.get(c.watch).Done() }
func (c *heldContext) Err() error            { return c.get(c.watch).Err() }

type heldKey struct{}

// Value returns c itself for heldKey.
func (c *heldContext) Value(key any) any {
	if key == (heldKey{}) {
		return c
	}
	return c.lazyContext.Value(key)
}

// heldBy reports whether the lock on the file id is held by a function that has called, directly or not,
// the one that has ctx.
func heldBy(ctx context.Context, id table.ID) bool {
	for {
		c, ok := ctx.Value(heldKey{}).(*heldContext)
		if !ok {
			return false
		}
		if !c.released.Load() && c.hold.ID() == id {
			return true
		}
		ctx = c.Context
	}
}

// watch makes the context that is done when the lock is released or found to be lost.
func (c *heldContext) watch(parent context.Context) context.Context {
	ctx, cancel := context.WithCancelCause(parent)
	if c.released.Load() {
		cancel(nil)
		return ctx
	}
	c.cancel, c.interval = cancel, firstLook
	c.timer = time.AfterFunc(c.interval, c.look)
	return ctx
}

// look looks at the path, and will do so again later if it still names the locked file.
func (c *heldContext) look() {
	same := c.hold.SameFile(c.handle.path())
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.released.Load():
	case !same:
		c.cancel(ErrReplaced)
	default:
		c.interval = min(5*c.interval, maxLook)
		c.timer.Reset(c.interval)
	}
}

func (c *heldContext) release() error {
	hold, err := c.handle.takeThis(c)
	if err == nil {
		c.end()
	}
	return c.handle.release(hold, err)
}

// end ends the context. It is called once, before the lock is released: at no time somebody else has the lock
// and the context is not done.
func (c *heldContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.released.Store(true)
	if c.cancel == nil {
		return
	}
	c.timer.Stop()
	if c.hold.SameFile(c.handle.path()) {
		c.cancel(nil)
	} else {
		c.cancel(ErrReplaced)
	}
}
