package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"time"

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

// A handle is what the two types of lock have in common.
type handle struct {
	db   *DB
	name string
	mu   sync.Mutex // protects the holds of the lock
}

// validate returns an error if nothing can be acquired through h.
func (h *handle) validate(ctx context.Context) error {
	switch {
	case ctx == nil:
		return fmt.Errorf("nil context: %w", fs.ErrInvalid)
	case h.db == nil:
		return fmt.Errorf("nil DB: %w", fs.ErrInvalid)
	case h.name == "":
		return fmt.Errorf("empty name: %w", fs.ErrInvalid)
	}
	return h.db.options.invalid
}

// acquire acquires the lock for one hold.
func (h *handle) acquire(ctx context.Context, m mode, try bool, hold *hold) error {
	if err := h.validate(ctx); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return contextError(ctx)
	}
	if d := h.db.options.timeout; d > 0 && !try {
		limited, cancel := context.WithTimeout(ctx, d)
		defer cancel()
		ctx = limited
	}
	w := h.db.enter(h.name, m, try, hold)
	select {
	case <-w.resolved:
	case <-ctx.Done():
	}
	if ctx.Err() == nil {
		return w.err
	}
	err := contextError(ctx)
	switch held, trouble := w.leave(); {
	case held:
		return &fasteners.HeldError{Err: err}
	case trouble != nil:
		return &causedError{err, trouble}
	}
	return err
}

// contextError returns the error of a context that is done, which wraps its cause, too.
func contextError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(err, cause) {
		return err
	}
	return &causedError{err, cause}
}

// A causedError is the error of a context with its cause, or with the reason for the wait.
type causedError struct{ err, cause error }

func (e *causedError) Error() string   { return e.err.Error() + ": " + e.cause.Error() }
func (e *causedError) Unwrap() []error { return []error{e.err, e.cause} }
func (e *causedError) Timeout() bool   { return errors.Is(e.err, context.DeadlineExceeded) }

func (h *handle) acquireTo(ctx context.Context, m mode, to *holds) error {
	start, hold := time.Now(), new(hold)
	err := h.acquire(ctx, m, false, hold)
	h.db.log(slog.LevelDebug, "acquire", h.name, err, slog.String("mode", m.String()), slog.Duration("waited", time.Since(start)))
	if err == nil {
		h.add(to, hold)
	}
	return h.pathError("acquire", err)
}

func (h *handle) tryAcquireTo(ctx context.Context, m mode, to *holds) (bool, error) {
	hold := new(hold)
	err := h.acquire(ctx, m, true, hold)
	acquired := err == nil
	if err == errBusy {
		err = nil
	}
	h.db.log(slog.LevelDebug, "try to acquire", h.name, err, slog.String("mode", m.String()), slog.Bool("acquired", acquired))
	if acquired {
		h.add(to, hold)
	}
	return acquired, h.pathError("acquire", err)
}

func (h *handle) hold(ctx context.Context, m mode, to *holds) (held context.Context, release func() error, err error) {
	start, hold := time.Now(), new(hold)
	inner := ctx
	if ctx != nil {
		inner, hold.cancel = context.WithCancelCause(ctx)
	}
	err = h.acquire(ctx, m, false, hold)
	h.db.log(slog.LevelDebug, "acquire", h.name, err, slog.String("mode", m.String()), slog.Duration("waited", time.Since(start)))
	if err != nil {
		if hold.cancel != nil {
			hold.cancel(nil)
		}
		return nil, nil, h.pathError("acquire", err)
	}
	if h.db.options.sequence != "" {
		inner = fasteners.ContextWithToken(inner, hold.grant.token)
	}
	h.add(to, hold)
	return &heldContext{inner, hold}, func() error { return h.release(h.takeThis(to, hold)) }, nil
}

// release releases the hold, unless err says that it is not held.
func (h *handle) release(hold *hold, err error) error {
	if err == nil {
		err = hold.release()
	}
	h.db.log(slog.LevelDebug, "release", h.name, err)
	return h.pathError("release", err)
}

func (h *handle) add(to *holds, hold *hold) {
	h.mu.Lock()
	defer h.mu.Unlock()
	*to = append(*to, hold)
}

// take takes any hold out of a list, for a caller that does not know which one it has.
func (h *handle) take(from *holds) (*hold, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return from.take()
}

// takeThis takes a certain hold out of a list.
func (h *handle) takeThis(from *holds, hold *hold) (*hold, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.Index(*from, hold)
	if i < 0 {
		return nil, fasteners.ErrNotAcquired // Release has ended it
	}
	*from = slices.Delete(*from, i, i+1)
	return hold, nil
}

func (h *handle) acquired(holds *holds) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(*holds) > 0
}

func (h *handle) pathError(op string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: h.name, Err: err}
}

// holds are the holds of one mode that were acquired through one handle, oldest first. There can be several
// even of exclusive ones, if all but the last are lost.
type holds []*hold

// take removes the oldest hold and returns it, or ErrNotAcquired. It is not one with a context, unless
// all have one: these release their own.
func (h *holds) take() (*hold, error) {
	if len(*h) == 0 {
		return nil, fasteners.ErrNotAcquired
	}
	i := max(0, slices.IndexFunc(*h, func(hold *hold) bool { return hold.cancel == nil }))
	hold := (*h)[i]
	*h = slices.Delete(*h, i, i+1)
	return hold, nil
}
