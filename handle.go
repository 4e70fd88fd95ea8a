package fasteners

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/go-fasteners/fasteners/internal/table"
)

// locks has all locks of this process, but those of files that it was given: see WithFile.
var locks = table.New(new(system), idleTimeout)

// A handle is what the two types of lock have in common: a path, options, and access to the locks of this
// process.
type handle struct {
	request table.Request
	options *options
	mu      sync.Mutex // protects the holds of the lock
}

func (h *handle) init(path string, opts []Option) {
	h.options = &defaults
	if strings.Contains(path, "\x00") {
		opts = append(opts[:len(opts):len(opts)], invalid("NUL byte in path"))
	}
	if len(opts) > 0 {
		own := defaults
		for _, o := range opts {
			if o != nil {
				o.apply(&own)
			}
		}
		h.options = &own
	}
	h.request = table.Request{Path: path, Options: &h.options.Options}
}

func (h *handle) path() string { return h.request.Path }

func (h *handle) exists() bool {
	_, err := os.Stat(h.path())
	return err == nil
}

// validate returns an error if nothing can be acquired through h.
func (h *handle) validate(ctx context.Context) error {
	switch {
	case ctx == nil:
		return fmt.Errorf("nil context: %w", fs.ErrInvalid)
	case h.path() == "": // as in a lock that was not made by its constructor
		return fmt.Errorf("empty path: %w", fs.ErrInvalid)
	}
	return h.options.invalid
}

// acquire adds the hold to a list, with its context if it has one. It has a small frame, since it is on the
// stack of every goroutine that waits.
func (h *handle) acquire(ctx context.Context, mode table.Mode, to *holds, held *heldContext) error {
	if h.options != nil && h.options.observed {
		return h.acquireObserved(ctx, mode, to, held)
	}
	hold, err := table.Hold{}, h.validate(ctx)
	if err == nil {
		hold, err = h.options.table.Acquire(ctx, &h.request, mode, false)
	}
	if err != nil {
		return h.pathError("acquire", waitError(ctx, err))
	}
	h.add(to, hold, held)
	return nil
}

func (h *handle) tryAcquire(mode table.Mode, to *holds) (bool, error) {
	var hold table.Hold
	err := h.validate(context.Background())
	if err == nil {
		hold, err = h.options.table.Acquire(context.Background(), &h.request, mode, true)
	}
	acquired := err == nil
	if err == table.ErrBusy {
		err = nil
	}
	if h.logger() != nil {
		h.log("try to acquire", err, slog.String("mode", mode.String()), slog.Bool("acquired", acquired))
	}
	if acquired {
		h.add(to, hold, nil)
	}
	return acquired, h.pathError("acquire", err)
}

// release releases the lock, unless err says that it is not held.
func (h *handle) release(hold table.Hold, err error) error {
	if err == nil {
		var same bool
		if same, err = hold.Release(h.path()); !same {
			err = errors.Join(ErrReplaced, err)
		}
	}
	h.log("release", err)
	return h.pathError("release", err)
}

func (h *handle) add(to *holds, hold table.Hold, held *heldContext) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if held != nil {
		held.hold, held.holds = hold, to
	}
	*to = append(*to, handleHold{hold, held})
}

// take takes any hold out of a list, for a caller that does not know which one it has, and ends its context.
func (h *handle) take(from *holds) (table.Hold, error) {
	h.mu.Lock()
	hold, err := from.take(h.path())
	h.mu.Unlock()
	if hold.held != nil {
		hold.held.end()
	}
	return hold.Hold, err
}

// takeThis takes the hold out of its list that has this context.
func (h *handle) takeThis(held *heldContext) (table.Hold, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.IndexFunc(*held.holds, func(hold handleHold) bool { return hold.held == held })
	if i < 0 {
		return table.Hold{}, ErrNotAcquired // Release has ended it
	}
	*held.holds = slices.Delete(*held.holds, i, i+1)
	return held.hold, nil
}

// holds are the holds of one mode that were acquired through one handle, oldest first. There can be
// several even of exclusive ones, on different files, if the lock file was replaced meanwhile.
type holds []handleHold

// A handleHold is a hold, with its context if it has one. Without that, holds on the same file are equal, and
// it makes no difference which of them ends.
type handleHold struct {
	table.Hold
	held *heldContext
}

// take removes a hold and returns it, or ErrNotAcquired. It is not known which of the holders releases the
// lock. It is not one with a context, unless all have one: these release their own. Of the others, a hold on a
// file that path no longer names goes first: as many holds remain on the new file as there may be holders that
// rely on them.
func (h *holds) take(path string) (handleHold, error) {
	mayTake := func(hold handleHold) bool { return hold.held == nil }
	if !slices.ContainsFunc(*h, mayTake) {
		mayTake = func(handleHold) bool { return true }
	}
	last := len(*h) - 1
	for last >= 0 && !mayTake((*h)[last]) {
		last--
	}
	if last < 0 {
		return handleHold{}, ErrNotAcquired
	}
	i := slices.IndexFunc((*h)[:last], func(hold handleHold) bool {
		return mayTake(hold) && hold.Hold != (*h)[last].Hold && !hold.SameFile(path) // usually all are equal
	})
	if i < 0 {
		i = last
	}
	hold := (*h)[i]
	*h = slices.Delete(*h, i, i+1)
	return hold, nil
}

// pathError returns err as callers see it, and nil if it is nil.
//
//go:noinline
func (h *handle) pathError(op string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: h.path(), Err: err}
}

// logger returns nil if there is none, as in a lock that was not made by its constructor.
func (h *handle) logger() *slog.Logger {
	if h.options == nil {
		return nil
	}
	return h.options.logger
}

func (h *handle) log(what string, err error, attrs ...slog.Attr) {
	if h.logger() == nil {
		return
	}
	attrs = append(attrs, slog.String("path", h.path()))
	if err != nil {
		attrs = append(attrs, slog.Any("error", err))
	}
	h.logger().LogAttrs(context.Background(), slog.LevelDebug, "fasteners: "+what, attrs...)
}
