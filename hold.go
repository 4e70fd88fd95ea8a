package fasteners

import (
	"context"
	"fmt"
	"sync"
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
	c := &heldContext{Context: ctx, handle: h}
	if err := h.acquire(ctx, mode, to, c); err != nil {
		return nil, nil, err
	}
	return c, c.release, nil
}

// A heldContext is the context of one hold of a file lock. Most functions are over before anybody asks
// whether it is done. So only the first such question makes a context that can be canceled, and begins to
// watch the path.
type heldContext struct {
	context.Context // that the lock was acquired with
	handle          *handle
	hold            table.Hold
	holds           *holds // the list that has it; handle.mu protects this

	released atomic.Bool
	mu       sync.Mutex // held to make watched, and to end it
	watched  atomic.Pointer[watchedContext]
}

type watchedContext struct {
	context.Context
	end      context.CancelCauseFunc
	timer    *time.Timer
	interval time.Duration
}

// The path is looked at as often as for those who wait: see internal/table/recheck.go.
const (
	firstLook = 8 * time.Millisecond
	maxLook   = time.Second
)

func (c *heldContext) String() string        { return fmt.Sprintf("%v.held", c.Context) }
func (c *heldContext) Done() <-chan struct{} { return c.watch().Done() }
func (c *heldContext) Err() error            { return c.watch().Err() }

type heldKey struct{}

// Value returns c itself for heldKey. Of a watched context it also returns what package context keeps
// there for its children, and for Cause.
func (c *heldContext) Value(key any) any {
	if key == (heldKey{}) {
		return c
	}
	if w := c.watched.Load(); w != nil {
		return w.Value(key)
	}
	return c.Context.Value(key)
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

func (c *heldContext) watch() *watchedContext {
	if w := c.watched.Load(); w != nil {
		return w
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if w := c.watched.Load(); w != nil {
		return w
	}
	w := &watchedContext{interval: firstLook}
	w.Context, w.end = context.WithCancelCause(c.Context)
	w.timer = time.AfterFunc(w.interval, c.lookLater)
	if c.released.Load() {
		w.stop(nil)
	}
	c.watched.Store(w)
	return w
}

func (w *watchedContext) stop(cause error) {
	w.end(cause)
	w.timer.Stop()
}

// lookLater looks at the path, and will do so again later if it still names the locked file.
func (c *heldContext) lookLater() {
	same := c.hold.SameFile(c.handle.path())
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.watched.Load()
	switch {
	case c.released.Load():
	case !same:
		w.stop(ErrReplaced)
	default:
		w.interval = min(5*w.interval, maxLook)
		w.timer.Reset(w.interval)
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
	c.released.Store(true)
	w := c.watched.Load()
	c.mu.Unlock()
	if w == nil {
		return
	}
	var cause error
	if !c.hold.SameFile(c.handle.path()) {
		cause = ErrReplaced
	}
	w.stop(cause)
}
