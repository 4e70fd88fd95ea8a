package fasteners

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"

	"github.com/go-fasteners/fasteners/internal/callback"
	"github.com/go-fasteners/fasteners/internal/locktable"
	"github.com/go-fasteners/fasteners/internal/printable"
)

// locks has all locks of this process, but those of files that it was given: see WithFile.
var locks = locktable.New(new(system), idleTimeout)

// A handle is what the two types of lock have in common: a path, options, and access to the
// locks of this process.
type handle struct {
	request locktable.Request
	options *options

	mu    sync.Mutex // protects holds
	holds []hold     // that were acquired through the handle, oldest first
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
	h.request = locktable.Request{Path: path, Options: &h.options.Options}
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

// acquire adds the hold to a list, with its context if it has one. It has a small frame, since
// it is on the stack of every goroutine that waits.
func (h *handle) acquire(ctx context.Context, mode locktable.Mode, held *holdContext) error {
	if h.options != nil && h.options.watched() {
		return h.acquireWatched(ctx, mode, held)
	}
	granted, err := locktable.Hold{}, h.validate(ctx)
	if err == nil {
		granted, err = h.options.table.Acquire(ctx, &h.request, mode, false)
	}
	if err != nil {
		return h.pathError("acquire", waitError(ctx, err))
	}
	h.add(granted, mode, held)
	return nil
}

func (h *handle) tryAcquire(mode locktable.Mode) (bool, error) {
	var granted locktable.Hold
	err := h.validate(context.Background())
	if err == nil {
		granted, err = h.options.table.Acquire(context.Background(), &h.request, mode, true)
	}
	acquired := err == nil
	if err == locktable.ErrBusy {
		err = nil
	}
	if h.logs() {
		h.logEnd(granted, acquired, "try to acquire", err,
			slog.String("mode", mode.String()), slog.Bool("acquired", acquired))
	}
	if acquired {
		h.add(granted, mode, nil)
	}
	return acquired, h.pathError("acquire", err)
}

// release releases the lock, unless err says that it is not held.
func (h *handle) release(hold locktable.Hold, err error) error {
	if err == nil {
		var same bool
		if same, err = hold.Release(h.path()); !same {
			err = errors.Join(ErrReplaced, err)
		}
	}
	h.log("release", err)
	return h.pathError("release", err)
}

// pathError returns err as callers see it, and nil if it is nil.
//
//go:noinline
func (h *handle) pathError(op string, err error) error {
	if err == nil {
		return nil
	}
	pathErr := &fs.PathError{Op: op, Path: h.path(), Err: err}
	if !printable.Is(h.path()) {
		return &unprintableError{pathErr}
	}
	return pathErr
}

// logger returns nil if there is none, as in a lock that was not made by its constructor.
func (h *handle) logger() *slog.Logger {
	if h.options == nil {
		return nil
	}
	return h.options.logger
}

// logs reports whether the lock has a logger that wants to know of operations.
func (h *handle) logs() bool {
	return h.logger() != nil && h.logger().Enabled(context.Background(), slog.LevelDebug)
}

func (h *handle) log(what string, err error, attrs ...slog.Attr) {
	if !h.logs() {
		return
	}
	attrs = append(attrs, slog.String("path", printable.Text(h.path())))
	if err != nil {
		attrs = append(attrs, slog.Any("error", err))
	}
	callback.Run(func() {
		h.logger().LogAttrs(context.Background(), slog.LevelDebug, "fasteners: "+what, attrs...)
	})
}

// logEnd logs the end of an acquire or a try. If the log handler panics, nobody else can
// release the lock that was granted.
func (h *handle) logEnd(
	granted locktable.Hold, acquired bool, what string, err error, attrs ...slog.Attr,
) {
	logged := false
	defer func() {
		if acquired && !logged {
			_, _ = granted.Release(h.path())
		}
	}()
	h.log(what, err, attrs...)
	logged = true
}

func (h *handle) hold(ctx context.Context, mode locktable.Mode) (context.Context, func() error, error) {
	c := &holdContext{lazyContext: lazyContext{Context: ctx}, handle: h}
	if err := h.acquire(ctx, mode, c); err != nil {
		return nil, nil, err
	}
	return c, c.release, nil
}

// file returns a duplicate of the descriptor of the newest hold. It keeps mu, so that the hold
// is not released before there is one.
func (h *handle) file() (*os.File, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	newest := len(h.holds) - 1
	if newest < 0 {
		return nil, h.pathError("duplicate", ErrNotAcquired)
	}
	f, err := h.holds[newest].Duplicate()
	return f, h.pathError("duplicate", err)
}

// holders returns the holders of the lock, and if waiters is true, those that wait for it, for
// a caller with that context.
func (h *handle) holders(ctx context.Context, waiters bool) ([]Holder, error) {
	err := h.validate(ctx)
	if err != nil {
		return nil, h.pathError("holders", err)
	}
	id, found, err := h.options.table.Holders(ctx, h.path(), waiters)
	return holdersFor(ctx, id, found), h.pathError("holders", err)
}
