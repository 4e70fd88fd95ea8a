package fasteners

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/go-fasteners/fasteners/internal/table"
)

// acquireObserved is acquire with a timeout, a notice or a logger. It makes nothing of these until it is
// clear that it has to wait.
func (h *handle) acquireObserved(ctx context.Context, mode table.Mode, to *holds, held *heldContext) error {
	start := time.Now()
	hold, err := table.Hold{}, h.validate(ctx)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		hold, err = locks.Acquire(ctx, &h.request, mode, true)
	}
	if err == table.ErrBusy {
		hold, err = h.wait(ctx, mode, start)
	} else {
		err = waitError(ctx, err)
	}
	if h.logger() != nil {
		h.log("acquire", err, slog.String("mode", mode.String()), slog.Duration("waited", time.Since(start)))
	}
	if err != nil {
		return h.pathError("acquire", err)
	}
	h.add(to, hold, held)
	return nil
}

func (h *handle) wait(ctx context.Context, mode table.Mode, start time.Time) (table.Hold, error) {
	o := h.options
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, start.Add(o.timeout))
		defer cancel()
	}
	if o.notice != nil || o.logger != nil {
		n := h.noticeLater(ctx, start)
		defer n.stop()
	}
	hold, err := locks.Acquire(ctx, &h.request, mode, false)
	if err != nil && err == ctx.Err() {
		err = locks.WaitError(h.path(), err)
	}
	return hold, waitError(ctx, err)
}

// A notice tells about one wait, from time to time.
type notice struct {
	handle *handle
	ctx    context.Context
	start  time.Time

	mu       sync.Mutex // protects what follows
	timer    *time.Timer
	interval time.Duration
	over     bool
}

const (
	minNoticeInterval = time.Second
	maxNoticeInterval = time.Minute
)

func (h *handle) noticeLater(ctx context.Context, start time.Time) *notice {
	after := h.options.noticeAfter
	if h.options.notice == nil {
		after = time.Second
	}
	n := &notice{handle: h, ctx: ctx, start: start, interval: max(after, minNoticeInterval)}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.timer = time.AfterFunc(time.Until(start.Add(after)), n.tell)
	return n
}

func (n *notice) stop() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.over = true
	n.timer.Stop()
}

func (n *notice) isOver() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.over
}

func (n *notice) tell() {
	holders, _ := n.handle.holders(n.ctx, false)
	if n.isOver() {
		return
	}
	o := n.handle.options
	if o.logger != nil {
		o.logger.LogAttrs(n.ctx, slog.LevelInfo, "fasteners: waiting", slog.String("path", n.handle.path()),
			slog.Duration("waited", time.Since(n.start)), slog.String("held by", describe(holders)))
	}
	if o.notice != nil && !n.isOver() {
		o.notice(holders)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.over {
		n.timer.Reset(n.interval)
		n.interval = min(2*n.interval, max(maxNoticeInterval, o.noticeAfter))
	}
}
