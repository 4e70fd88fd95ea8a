package lease

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/go-fasteners/fasteners"
)

// A Hold is a lock that is held. An engine embeds it in a type of its own, with what it needs to
// release the lock, and sets the fields before it returns that from its Acquire.
type Hold struct {
	Lease *Lease // the hold is lost with it; nil if holds are not lost by themselves
	Token int64  // see [fasteners.Token]; 0 if there is none

	mu     sync.Mutex
	lost   error                   // or nil
	ended  bool                    // released; lost does not change any more
	cancel context.CancelCauseFunc // nil if the hold has no context
}

// A Holder is a pointer to a struct that embeds [Hold].
type Holder interface {
	// Release gives the lock back. It is called at most once. Before that, the context of the
	// hold is done, and Err tells whether the hold was lost: it does not change any more. Release
	// returns nil only if no other holder can have had the lock until now. Otherwise its error
	// wraps [fasteners.ErrLost]; and whatever the error, the lock is not held any more.
	Release() error

	base() *Hold
}

func (h *Hold) base() *Hold { return h }

// Err returns why the lock was lost while it was held, and nil if it was not. The error wraps
// [fasteners.ErrLost]. It looks at the clock.
func (h *Hold) Err() error {
	if h.Lease != nil {
		if err := h.Lease.Err(); err != nil {
			h.lose(err)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.lost
}

// Lose makes this hold lost, and not the others of its lease, unless it is released or lost
// already. When Lose returns, its context is done, with a cause that wraps [fasteners.ErrLost]
// and cause.
func (h *Hold) Lose(cause error) {
	if !errors.Is(cause, fasteners.ErrLost) {
		cause = fmt.Errorf("%w: %w", fasteners.ErrLost, cause)
	}
	h.lose(cause)
}

func (h *Hold) lose(cause error) {
	h.mu.Lock()
	if h.lost == nil && !h.ended {
		h.lost = cause
	}
	h.mu.Unlock()
	h.endContext()
}

// end ends the context, before the lock is released: at no time another holder has the lock and the
// context is not done.
func (h *Hold) end() {
	_ = h.Err()
	h.mu.Lock()
	h.ended = true
	h.mu.Unlock()
	h.endContext()
	if h.Lease != nil {
		h.Lease.remove(h)
	}
}

// endContext ends the context of a hold that is lost or released. Every call gives the same cause.
func (h *Hold) endContext() {
	h.mu.Lock()
	cancel, lost := h.cancel, h.lost
	h.mu.Unlock()
	if cancel != nil {
		cancel(lost)
	}
}

// begin makes the context of the hold, which has the value for the key, and the token.
func (h *Hold) begin(parent context.Context, key, value any) context.Context {
	ctx, cancel := context.WithCancelCause(parent)
	h.mu.Lock()
	h.cancel = cancel
	h.mu.Unlock()
	if h.Lease != nil {
		h.Lease.add(h)
	}
	held := &holdContext{ctx, h, key, value}
	if h.Token == 0 {
		return held
	}
	return fasteners.ContextWithToken(held, h.Token)
}

// A holdContext is the context of a hold. Whenever it is asked whether it is done, it looks at
// the clock: a process that was stopped for longer than its lease must not go on before a timer
// has run.
type holdContext struct {
	context.Context
	hold       *Hold
	key, value any
}

func (c *holdContext) String() string { return fmt.Sprintf("%v.held", c.Context) }

func (c *holdContext) Done() <-chan struct{} {
	_ = c.Err()
	return c.Context.Done()
}

func (c *holdContext) Err() error {
	if c.Context.Err() == nil {
		_ = c.hold.Err() // ends it
	}
	return c.Context.Err()
}

func (c *holdContext) Value(key any) any {
	if key == c.key {
		return c.value
	}
	return c.Context.Value(key)
}

type holdKey[H Holder] struct{}

// HoldOf returns the innermost hold of this type that ctx is the context of, or is derived from,
// and reports whether there is one.
func HoldOf[H Holder](ctx context.Context) (H, bool) {
	h, ok := ctx.Value(holdKey[H]{}).(H)
	return h, ok
}
