package fasteners

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-fasteners/fasteners/internal/locktable"
)

// A hold is one hold that was acquired through a handle. Those without a context, in one mode
// and on the same file, are equal, and it makes no difference which of them ends. There can be
// several exclusive ones, on different files, if the lock file was replaced meanwhile.
type hold struct {
	locktable.Hold
	mode locktable.Mode
	ctx  *holdContext // or nil
}

// add notes a hold that was granted, with its context if it has one.
func (h *handle) add(granted locktable.Hold, mode locktable.Mode, ctx *holdContext) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ctx != nil {
		ctx.hold = granted
	}
	h.holds = append(h.holds, hold{granted, mode, ctx})
}

// take takes any hold in that mode, for a caller that does not know which one it has, and ends its
// context.
func (h *handle) take(mode locktable.Mode) (locktable.Hold, error) {
	h.mu.Lock()
	taken, err := h.removeLocked(h.findLocked(mode))
	h.mu.Unlock()
	if taken.ctx != nil {
		taken.ctx.end()
	}
	return taken.Hold, err
}

// takeThis takes the hold that has this context, and ends that.
func (h *handle) takeThis(ctx *holdContext) (locktable.Hold, error) {
	h.mu.Lock()
	i := slices.IndexFunc(h.holds, func(o hold) bool { return o.ctx == ctx })
	taken, err := h.removeLocked(i) // unless Release has ended it
	h.mu.Unlock()
	if err == nil {
		ctx.end()
	}
	return taken.Hold, err
}

// findLocked returns the index of the hold in that mode that ends next if it is not known which
// of the holders releases the lock, or -1. It is the newest, but none with a context unless all
// have one: these release their own. Before it goes one on a file that the path no longer
// names: as many holds remain on the new file as there may be holders that rely on them.
func (h *handle) findLocked(mode locktable.Mode) int {
	candidate := func(o hold) bool { return o.mode == mode && o.ctx == nil }
	if !slices.ContainsFunc(h.holds, candidate) {
		candidate = func(o hold) bool { return o.mode == mode }
	}
	newest := len(h.holds) - 1
	for newest >= 0 && !candidate(h.holds[newest]) {
		newest--
	}
	for i := range max(newest, 0) { // usually all are equal
		if o := h.holds[i]; candidate(o) && o.Hold != h.holds[newest].Hold && !o.SameFile(h.path()) {
			return i
		}
	}
	return newest
}

// removeLocked removes the hold with that index, if it is one.
func (h *handle) removeLocked(i int) (hold, error) {
	if i < 0 {
		return hold{}, ErrNotAcquired
	}
	removed := h.holds[i]
	h.holds = slices.Delete(h.holds, i, i+1)
	return removed, nil
}

// A holdContext is the context of one hold of a file lock. As soon as somebody asks whether it
// is done, it watches the path.
type holdContext struct {
	lazyContext // of the one that the lock was acquired with
	handle      *handle
	hold        locktable.Hold
	released    atomic.Bool

	// mu protects these, of the context that was made.
	cancel   context.CancelCauseFunc
	timer    *time.Timer
	interval time.Duration
}

// The path is looked at as often as for those that wait: see internal/locktable/recheck.go.
const (
	firstLook = 8 * time.Millisecond
	maxLook   = time.Second
)

func (c *holdContext) String() string        { return fmt.Sprintf("%v.held", c.Context) }
func (c *holdContext) Done() <-chan struct{} { return c.get(c.watch).Done() }
func (c *holdContext) Err() error            { return c.get(c.watch).Err() }

type holdKey struct{}

// Value returns c itself for holdKey.
func (c *holdContext) Value(key any) any {
	if key == (holdKey{}) {
		return c
	}
	return c.lazyContext.Value(key)
}

// isHeldByCaller reports whether the lock on the file id is held by a function that has called,
// directly or not, the one that has ctx.
func isHeldByCaller(ctx context.Context, id locktable.ID) bool {
	for {
		c, ok := ctx.Value(holdKey{}).(*holdContext)
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
func (c *holdContext) watch(parent context.Context) context.Context {
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
func (c *holdContext) look() {
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

func (c *holdContext) release() error { return c.handle.release(c.handle.takeThis(c)) }

// end ends the context. It is called once, before the lock is released: at no time somebody
// else has the lock and the context is not done.
func (c *holdContext) end() {
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
