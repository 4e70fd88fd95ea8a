package lease

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/internal/callback"
)

// A Mode tells what a hold excludes.
type Mode uint8

const (
	Shared    Mode = iota // writers
	Exclusive             // all others
)

// String returns "shared" or "exclusive".
func (m Mode) String() string {
	if m == Shared {
		return "shared"
	}
	return "exclusive"
}

// An Engine grants locks, for a [Handle]. H is its type of holds.
type Engine[H Holder] struct {
	// Acquire acquires the lock of that name, waiting until it is available or ctx is done. With
	// try it waits for no other holder, and returns [ErrBusy] itself if there is one. It must not
	// change a hold after it has returned it, but by the methods of [Hold].
	//
	// The name is not empty, and ctx was not done before the call. When it is, Acquire returns
	// [ContextError], in a [fasteners.HeldError] if the lock is held.
	Acquire func(ctx context.Context, name string, m Mode, try bool) (H, error)

	Timeout time.Duration // of each wait, or 0
	Logger  *slog.Logger  // or nil
	Invalid error         // what is wrong with the options: no lock can be acquired
}

// Log logs something about the lock of that name, with the error if there is one. It waits for the
// handler for no more than a moment, as that may wait for the lock.
func (e *Engine[H]) Log(level slog.Level, what, name string, err error, attrs ...slog.Attr) {
	if e == nil || e.Logger == nil {
		return
	}
	if !e.Logger.Enabled(context.Background(), level) {
		return
	}
	attrs = append(attrs, slog.String("path", name))
	if err != nil {
		attrs = append(attrs, slog.Any("error", err))
	}
	callback.Run(func() {
		e.Logger.LogAttrs(context.Background(), level, "fasteners: "+what, attrs...)
	})
}

// A Handle is what the lock types of an engine have in common. It knows the holds that were
// acquired through it. Its errors are of type [*fs.PathError], with the name as Path. Nothing can
// be acquired through a handle whose engine is nil, such as the zero one.
//
// It may be used by any number of goroutines, and must not be copied.
type Handle[H Holder] struct {
	Engine *Engine[H]
	Name   string // of the lock

	mu    sync.Mutex
	holds []modeHold[H] // oldest first
}

// A modeHold is a hold in the list of a handle.
type modeHold[H Holder] struct {
	hold H
	mode Mode
}

// Acquire acquires the lock, for [fasteners.Locker] and its siblings.
func (h *Handle[H]) Acquire(ctx context.Context, m Mode) error {
	hold, err := h.acquire(ctx, m)
	if err == nil {
		h.add(hold, m)
	}
	return err
}

// Hold acquires the lock, for [fasteners.ContextLocker] and its siblings: it returns the context of
// the hold, and a function that releases it.
func (h *Handle[H]) Hold(ctx context.Context, m Mode) (context.Context, func() error, error) {
	hold, err := h.acquire(ctx, m)
	if err != nil {
		return nil, nil, err
	}
	held := hold.base().begin(ctx, holdKey[H]{}, hold)
	h.add(hold, m)
	return held, func() error { return h.release(h.takeThis(hold)) }, nil
}

// TryAcquire acquires the lock without waiting for others to release it, and reports whether it
// succeeded.
func (h *Handle[H]) TryAcquire(ctx context.Context, m Mode) (bool, error) {
	hold, err := h.request(ctx, m, true)
	acquired := err == nil
	if err == ErrBusy {
		err = nil
	}
	h.logEnd(hold, acquired, "try to acquire", err,
		slog.String("mode", m.String()), slog.Bool("acquired", acquired))
	if acquired {
		h.add(hold, m)
	}
	return acquired, PathError("acquire", h.Name, err)
}

// Release releases a hold for a caller that does not know which one it has. It is not one with a
// context, unless all have one: these release their own. Of the others it is one that is lost, if
// there is one, since then the lock stays held for each caller that still has it; and otherwise the
// newest.
func (h *Handle[H]) Release(m Mode) error { return h.release(h.take(m)) }

// Acquired reports whether the lock is held in this mode through the handle, and not known to be
// lost.
func (h *Handle[H]) Acquired(m Mode) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(h.holds, func(e modeHold[H]) bool {
		return e.mode == m && e.hold.base().Err() == nil
	})
}

// acquire acquires the lock, waiting for it at most as long as ctx and the timeout allow.
func (h *Handle[H]) acquire(ctx context.Context, m Mode) (H, error) {
	begun := time.Now()
	hold, err := h.wait(ctx, m, begun)
	h.logEnd(hold, err == nil, "acquire", err,
		slog.String("mode", m.String()), slog.Duration("waited", time.Since(begun)))
	return hold, PathError("acquire", h.Name, err)
}

func (h *Handle[H]) wait(ctx context.Context, m Mode, begun time.Time) (H, error) {
	if e := h.Engine; e != nil && e.Timeout > 0 && ctx != nil {
		limited, cancel := context.WithTimeout(ctx, e.Timeout)
		defer cancel()
		ctx = limited
	}
	defer h.notice(m, begun)()
	return h.request(ctx, m, false)
}

// request asks the engine for the lock.
func (h *Handle[H]) request(ctx context.Context, m Mode, try bool) (hold H, err error) {
	switch {
	case ctx == nil:
		return hold, fmt.Errorf("nil context: %w", fs.ErrInvalid)
	case h.Engine == nil || h.Engine.Acquire == nil:
		return hold, errNoEngine
	case h.Name == "":
		return hold, fmt.Errorf("empty name: %w", fs.ErrInvalid)
	case h.Engine.Invalid != nil:
		return hold, h.Engine.Invalid
	case ctx.Err() != nil:
		return hold, ContextError(ctx)
	}
	return h.Engine.Acquire(ctx, h.Name, m, try)
}

// release releases the hold, unless err says that there is none.
func (h *Handle[H]) release(hold H, err error) error {
	if err == nil {
		hold.base().end()
		err = hold.Release()
	}
	h.log("release", err)
	return PathError("release", h.Name, err)
}

func (h *Handle[H]) add(hold H, m Mode) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.holds = append(h.holds, modeHold[H]{hold, m})
}

// take takes a hold out of the list, for a caller that does not know which one it has.
func (h *Handle[H]) take(m Mode) (H, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := h.findLocked(m, func(hold *Hold) bool { return hold.cancel == nil })
	if i < 0 {
		i = h.findLocked(m, func(*Hold) bool { return true })
	}
	return h.takeLocked(i)
}

// takeThis takes that hold out of the list.
func (h *Handle[H]) takeThis(hold H) (H, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.takeLocked(slices.IndexFunc(h.holds, func(e modeHold[H]) bool {
		return e.hold.base() == hold.base()
	}))
}

// findLocked returns the index of the hold to be released of those in a mode that may be, or -1.
// There are several exclusive ones only if all but the newest are lost, even if that is not known
// yet.
func (h *Handle[H]) findLocked(m Mode, may func(*Hold) bool) int {
	found := -1
	for i, e := range h.holds {
		hold := e.hold.base()
		if e.mode != m || !may(hold) {
			continue
		}
		found = i
		if m == Exclusive || hold.Err() != nil {
			break
		}
	}
	return found
}

func (h *Handle[H]) takeLocked(i int) (hold H, err error) {
	if i < 0 {
		return hold, fasteners.ErrNotAcquired
	}
	hold = h.holds[i].hold
	h.holds = slices.Delete(h.holds, i, i+1)
	return hold, nil
}

// logEnd logs the end of an acquire or a try. If the log handler panics, nobody else can release the
// hold.
func (h *Handle[H]) logEnd(hold H, acquired bool, what string, err error, attrs ...slog.Attr) {
	logged := false
	defer func() {
		if acquired && !logged {
			hold.base().end()
			_ = hold.Release()
		}
	}()
	h.log(what, err, attrs...)
	logged = true
}

func (h *Handle[H]) log(what string, err error, attrs ...slog.Attr) {
	if h.Engine != nil && h.Engine.Logger != nil {
		h.Engine.Log(slog.LevelDebug, what, h.Name, err, attrs...)
	}
}

// The intervals between notices of a wait double from the first to the last.
const (
	firstNotice = time.Second
	maxNotice   = time.Minute
)

// notice logs that a wait goes on, again and again. The caller must call the function that it
// returns when the wait is over.
func (h *Handle[H]) notice(m Mode, begun time.Time) (over func()) {
	if h.Engine == nil || h.Engine.Logger == nil {
		return func() {}
	}
	var mu sync.Mutex
	ended, pause := false, firstNotice
	mu.Lock()
	defer mu.Unlock()
	var timer *time.Timer
	timer = time.AfterFunc(pause, func() {
		mu.Lock()
		defer mu.Unlock()
		if ended {
			return
		}
		h.Engine.Log(slog.LevelInfo, "waiting", h.Name, nil, slog.String("mode", m.String()),
			slog.Duration("waited", time.Since(begun)))
		timer.Reset(pause)
		pause = min(2*pause, maxNotice)
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		ended = true
		timer.Stop()
	}
}
