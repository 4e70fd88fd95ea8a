package etcd

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

// A handle is what the two types of lock have in common.
type handle struct {
	session *Session
	name    string
	mu      sync.Mutex // protects the holds of the lock
}

// holds are the holds of one mode that were acquired through one handle, oldest first. There can be
// several exclusive ones: of all but the last, the lock was lost.
type holds []*hold

// validate returns an error if nothing can be acquired through h.
func (h *handle) validate(ctx context.Context) error {
	switch {
	case ctx == nil:
		return fmt.Errorf("nil context: %w", fs.ErrInvalid)
	case h.session == nil || h.session.client == nil: // as in a lock that was not made by its constructor
		return fmt.Errorf("no session or client: %w", fs.ErrInvalid)
	case validateName(h.name) != "":
		return fmt.Errorf("%s: %w", validateName(h.name), fs.ErrInvalid)
	}
	return h.session.options.invalid
}

// acquire acquires the lock, waiting for it at most as long as ctx and the options allow.
func (h *handle) acquire(ctx context.Context, m mode) (*hold, error) {
	if err := h.validate(ctx); err != nil {
		return nil, h.pathError("acquire", err)
	}
	begun := time.Now()
	wait, cancel := h.observe(ctx, m)
	hold, err := h.wait(wait, m, false)
	cancel()
	h.log("acquire", err, slog.String("mode", m.String()), slog.Duration("waited", time.Since(begun)))
	return hold, h.pathError("acquire", err)
}

// acquireInto adds the hold to a list.
func (h *handle) acquireInto(ctx context.Context, m mode, to *holds) error {
	hold, err := h.acquire(ctx, m)
	if err == nil {
		h.add(to, hold)
	}
	return err
}

// acquireWithContext adds the hold to a list, and makes its context and a function that releases it.
func (h *handle) acquireWithContext(ctx context.Context, m mode, to *holds) (context.Context, func() error, error) {
	hold, err := h.acquire(ctx, m)
	if err != nil {
		return nil, nil, err
	}
	held := hold.begin(ctx)
	h.add(to, hold)
	return held, func() error { return h.release(h.takeThis(hold, to)) }, nil
}

func (h *handle) tryAcquire(ctx context.Context, m mode, to *holds) (bool, error) {
	if err := h.validate(ctx); err != nil {
		return false, h.pathError("acquire", err)
	}
	hold, err := h.wait(ctx, m, true)
	acquired := err == nil
	if err == errBusy {
		err = nil
	}
	h.log("try to acquire", err, slog.String("mode", m.String()), slog.Bool("acquired", acquired))
	if acquired {
		h.add(to, hold)
	}
	return acquired, h.pathError("acquire", err)
}

// release releases the lock, unless err says that it is not held.
func (h *handle) release(hold *hold, err error) error {
	if err == nil {
		err = hold.release()
	}
	h.log("release", err)
	return h.pathError("release", err)
}

// acquired reports whether there is a hold in a list that is not known to be lost.
func (h *handle) acquired(in *holds) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(*in, func(hold *hold) bool { return !hold.isLost() })
}

func (h *handle) add(to *holds, hold *hold) {
	h.mu.Lock()
	defer h.mu.Unlock()
	*to = append(*to, hold)
}

// take takes the oldest hold out of a list, for a caller that does not know which one it has. It is not
// one with a context, unless all have one: these release their own.
func (h *handle) take(from *holds) (*hold, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.IndexFunc(*from, func(hold *hold) bool { return hold.ctx == nil })
	if i < 0 && len(*from) > 0 {
		i = 0
	}
	return h.takeLocked(i, from)
}

// takeThis takes that hold out of its list.
func (h *handle) takeThis(hold *hold, from *holds) (*hold, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.takeLocked(slices.Index(*from, hold), from)
}

func (h *handle) takeLocked(i int, from *holds) (*hold, error) {
	if i < 0 {
		return nil, fasteners.ErrNotAcquired
	}
	hold := (*from)[i]
	*from = slices.Delete(*from, i, i+1)
	return hold, nil
}

// pathError returns err as callers see it, and nil if it is nil.
func (h *handle) pathError(op string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: h.name, Err: err}
}

func (h *handle) log(what string, err error, attrs ...slog.Attr) {
	if h.session != nil {
		h.session.log(slog.LevelDebug, what, err, append(attrs, slog.String("path", h.name))...)
	}
}

const (
	firstNotice = time.Second
	maxNotice   = time.Minute
)

// observe returns the context of a wait, which ends with the timeout of the options, and logs that it
// goes on. The caller must call the function when the wait is over.
func (h *handle) observe(ctx context.Context, m mode) (context.Context, context.CancelFunc) {
	o := h.session.options
	cancel := context.CancelFunc(func() {})
	if o.timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, o.timeout)
	}
	if o.logger == nil {
		return ctx, cancel
	}
	over := make(chan struct{})
	go func() {
		begun := time.Now()
		for pause := firstNotice; ; pause = min(2*pause, maxNotice) {
			select {
			case <-over:
				return
			case <-time.After(pause):
				h.session.log(slog.LevelInfo, "waiting", nil, slog.String("mode", m.String()),
					slog.Duration("waited", time.Since(begun)), slog.String("path", h.name))
			}
		}
	}()
	return ctx, func() { close(over); cancel() }
}

// withCause makes err, which is that of ctx, wrap the cause of ctx, too.
func withCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", err, cause)
	}
	return err
}
