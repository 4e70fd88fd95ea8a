package postgres

import (
	"context"
	"log/slog"
	"time"

	"github.com/go-fasteners/fasteners/lease"
)

// The intervals between attempts to reach the server double from the first to
// the last.
const (
	minRetry = 50 * time.Millisecond
	maxRetry = time.Second
)

// serve acquires the lock from the server for one waiter after the other, until
// none is left, or the lock is lost: then another goroutine serves those that
// still wait.
func (e *entry) serve() {
	var s *session // or nil
	for retry := minRetry; ; {
		ctx, first, rest := e.next(s)
		if s = rest; first == nil {
			s.close()
			return
		}
		var err error
		if s == nil {
			s, err = e.db.session(ctx, first.try)
		}
		var g *grant
		if err == nil {
			g, err = e.ask(ctx, s, first.mode, first.try)
		}
		if err == nil {
			retry = minRetry
			if lost := g.keep(); lost {
				e.db.putIdle(s)
				return
			}
			continue
		}
		reused := s != nil && s.used
		if err != lease.ErrBusy {
			s.close()
			s = nil
		}
		switch {
		case ctx.Err() != nil: // nobody waits for this any more
		case reused && isTransient(err): // the server had ended the session
		case isTransient(err):
			e.db.engine.Log(slog.LevelInfo, "cannot reach the server", e.name, err)
			e.fail(err)
			_ = sleep(ctx, retry)
			retry = min(2*retry, maxRetry)
		default:
			e.fail(err)
		}
	}
}

// next returns the first waiter, and a context for its wait. If there is none,
// the goroutine must end, and next keeps the session for later, or returns it
// if it has to be closed.
func (e *entry) next(s *session) (ctx context.Context, first *waiter, rest *session) {
	e.db.mu.Lock()
	defer e.db.mu.Unlock()
	if e.stop != nil {
		e.stop()
		e.stop = nil
	}
	first = e.headLocked()
	if first == nil {
		e.serving = false
		delete(e.db.entries, e.name)
		return nil, nil, e.db.putIdleLocked(s)
	}
	ctx, e.stop = context.WithCancel(e.db.closing)
	e.asked = first.mode
	return ctx, first, s
}

// ask asks the server for the lock, and makes those holders that want it then.
func (e *entry) ask(ctx context.Context, s *session, m lease.Mode, try bool) (*grant, error) {
	mu := &e.db.mu
	mu.Lock()
	e.asking, e.trouble = true, nil
	mu.Unlock()
	token, sent, err := s.lock(ctx, e.key, m, try)

	mu.Lock()
	defer mu.Unlock()
	e.asking = false
	if err != nil {
		return nil, err
	}
	e.stop() // nobody can give up that wait any more
	e.stop = nil
	s.used = true
	g := newGrant(e, s, m, token, sent)
	// A grant that came too late, or that nobody wants any more, has no holders
	// and is released.
	if w := e.headLocked(); w != nil && w.mode == m && g.lastsLocked() {
		e.grant = g
		e.admitLocked(g)
		e.failTriesLocked(lease.ErrBusy) // they would have to wait
	}
	return g, nil
}

// fail ends the waits of those that an error of the server concerns. If that
// may soon be over, the others wait.
func (e *entry) fail(err error) {
	e.db.mu.Lock()
	defer e.db.mu.Unlock()
	switch {
	case err == lease.ErrBusy:
		e.failTriesLocked(err)
	case isTransient(err):
		e.trouble = err
		e.failTriesLocked(err)
	default:
		e.failLocked(err)
	}
}
