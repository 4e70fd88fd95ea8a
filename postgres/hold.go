package postgres

import (
	"context"
	"fmt"

	"github.com/go-fasteners/fasteners"
)

// A hold is one holder of a grant.
type hold struct {
	grant    *grant
	cancel   context.CancelCauseFunc // of the context of the hold, or nil if it has none
	released bool                    // DB.mu protects this
}

// end ends the context of the hold, which is released or lost.
func (h *hold) end() {
	if h.cancel == nil {
		return
	}
	h.grant.entry.db.mu.Lock()
	lost := h.grant.lost
	h.grant.entry.db.mu.Unlock()
	h.cancel(lost)
}

// release ends the hold. If it returns nil, nobody else has had the lock.
func (h *hold) release() error {
	g := h.grant
	mu := &g.entry.db.mu
	mu.Lock()
	if h.released {
		mu.Unlock()
		return fasteners.ErrNotAcquired
	}
	h.released = true
	mu.Unlock()
	// The context ends first: at no time somebody else has the lock and the context is not done.
	g.check()
	h.end()

	mu.Lock()
	if g.over {
		mu.Unlock()
		return g.lost
	}
	d := &departure{h, make(chan error, 1)}
	g.leaving = append(g.leaving, d)
	g.interruptLocked()
	mu.Unlock()
	return <-d.result
}

// A heldContext is the context of a hold. It looks at the clock itself: after this process was stopped, a
// timer may not have run yet.
type heldContext struct {
	context.Context
	hold *hold
}

func (c *heldContext) String() string { return fmt.Sprintf("%v.held", c.Context) }

func (c *heldContext) Err() error {
	if err := c.Context.Err(); err != nil {
		return err
	}
	if g := c.hold.grant; now() >= instant(g.deadline.Load()) {
		g.check()
		c.hold.end() // another goroutine may be about to do that
	}
	return c.Context.Err()
}

type holdKey struct{}

// Value returns the hold for holdKey.
func (c *heldContext) Value(key any) any {
	if key == (holdKey{}) {
		return c.hold
	}
	return c.Context.Value(key)
}
