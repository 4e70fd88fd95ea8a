package fasteners

import (
	"context"
	"log/slog"
	"time"

	"github.com/go-fasteners/fasteners/internal/cause"
	"github.com/go-fasteners/fasteners/internal/locktable"
	"github.com/go-fasteners/fasteners/internal/printable"
)

// acquireWatched is acquire with a timeout, a notice or a logger.
func (h *handle) acquireWatched(ctx context.Context, mode locktable.Mode, held *holdContext) error {
	w := &waitContext{lazyContext: lazyContext{Context: ctx}, handle: h, mode: mode, start: time.Now()}
	granted, err := locktable.Hold{}, h.validate(ctx)
	if err == nil {
		granted, err = h.options.table.Acquire(w, &h.request, mode, false)
		if err != nil && err == w.Err() && ctx.Err() == nil {
			granted, err = h.acquireLate(w, mode)
		}
		err = waitError(w, err)
		w.end()
	}
	if h.logs() {
		h.logEnd(granted, err == nil, "acquire", err,
			slog.String("mode", mode.String()), slog.Duration("waited", time.Since(w.start)))
	}
	if err != nil {
		return h.pathError("acquire", err)
	}
	h.add(granted, mode, held)
	return nil
}

// lateTry bounds how long a try may take for which there was no time before the timeout.
const lateTry = 10 * time.Millisecond

// acquireLate is called if the timeout is over, and nobody is known to have held the lock
// meanwhile: nobody has even tried to acquire it, since another goroutine was about to, or
// closed the file. One try decides.
func (h *handle) acquireLate(w *waitContext, mode locktable.Mode) (locktable.Hold, error) {
	ctx, cancel := context.WithTimeout(w.Context, lateTry)
	defer cancel()
	granted, err := h.options.table.Acquire(ctx, &h.request, mode, true)
	switch err {
	case locktable.ErrBusy:
		holders, _ := h.holders(w.Context, false)
		err = &HeldError{Holders: holders, Err: cause.Of(w)}
	case ctx.Err():
		err = w.Err()
	}
	return granted, err
}

// A waitContext is the context of one acquire. When it begins to wait, which is when it asks
// whether the context is done, it sets timers for the timeout and for the first notice.
type waitContext struct {
	lazyContext // of the one that Acquire was called with
	handle      *handle
	mode        locktable.Mode
	start       time.Time

	// mu protects these, of the context that was made.
	cancel   context.CancelFunc
	notice   *time.Timer // or nil
	interval time.Duration
	over     bool
}

const (
	defaultNoticeAfter = time.Second // for the logger
	minNoticeInterval  = time.Second
	maxNoticeInterval  = time.Minute
)

func (w *waitContext) Done() <-chan struct{} { return w.get(w.begin).Done() }

// Err is asked for without a wait, too, and begins none.
func (w *waitContext) Err() error {
	if made := w.made.Load(); made != nil {
		return (*made).Err()
	}
	return w.Context.Err()
}

// begin makes the context that is done when the timeout is over.
func (w *waitContext) begin(parent context.Context) context.Context {
	o := w.handle.options
	ctx := parent
	if o.timeout > 0 {
		ctx, w.cancel = context.WithDeadline(parent, w.start.Add(o.timeout))
	} else {
		ctx, w.cancel = context.WithCancel(parent)
	}
	if o.notice != nil || o.logger != nil {
		after := defaultNoticeAfter
		if o.notice != nil {
			after = o.noticeAfter
		}
		w.interval = max(after, minNoticeInterval)
		w.notice = time.AfterFunc(time.Until(w.start.Add(after)), w.tell)
	}
	return ctx
}

// end ends the wait. A call of tell may still be running, but no other begins.
func (w *waitContext) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	if w.cancel != nil {
		w.cancel()
	}
	if w.notice != nil {
		w.notice.Stop()
	}
}

func (w *waitContext) isOver() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.over
}

// tell gives notice of the wait, and will do so again later if that goes on. It waits for its turn
// to ask who holds the lock only as long as the wait goes on: otherwise calls of tell could come
// faster than answers.
func (w *waitContext) tell() {
	holders, _ := w.handle.holders(w, false)
	if w.Err() != nil || w.isOver() {
		return
	}
	o := w.handle.options
	if o.logger != nil {
		o.logger.LogAttrs(w.Context, slog.LevelInfo, "fasteners: waiting", slog.String("mode", w.mode.String()),
			slog.Duration("waited", time.Since(w.start)), slog.String("path", printable.Text(w.handle.path())),
			slog.String("held by", describe(holders)))
	}
	if o.notice != nil && !w.isOver() {
		o.notice(holders)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over {
		w.notice.Reset(w.interval)
		w.interval = min(2*w.interval, max(maxNoticeInterval, o.noticeAfter))
	}
}
