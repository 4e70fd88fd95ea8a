package postgres

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/go-fasteners/fasteners"
)

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
