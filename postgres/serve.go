package postgres

import (
	"context"
	"log/slog"
	"time"
)

// The intervals between attempts to reach the server double from the first to the last.
const (
	minRetry = 50 * time.Millisecond
	maxRetry = time.Second
)

// serve acquires the lock from the server for one waiter after the other, until none is left, or the lock is
// lost: then another goroutine serves those who still wait.
func (e *entry) serve() {
	var s *session
	retry := minRetry
	for {
		var ctx context.Context
		var m mode
		var try bool
		if ctx, m, try, s = e.next(s); ctx == nil {
			return
		}
		var err error
		if s == nil {
			s, err = e.session(ctx, try)
		}
		var g *grant
		if err == nil {
			g, err = s.acquire(ctx, e, m, try)
		}
		if err == nil {
			retry = minRetry
			lost := e.keep(g)
			if lost {
				return
			}
			if s = g.session; s.conn.IsClosed() {
				s = nil
			}
			continue
		}
		reused := s != nil && s.used
		if s != nil && err != errBusy {
			s.close()
			s = nil
		}
		switch {
		case ctx.Err() != nil: // nobody waits for this any more
		case err == errBusy:
			e.failTries(errBusy)
		case reused && isTransient(err): // the server had ended the session
		case isTransient(err):
			e.db.log(slog.LevelInfo, "cannot reach the server", e.name, err)
			e.failTries(err)
			e.setTrouble(err)
			_ = sleep(ctx, retry)
			retry = min(2*retry, maxRetry)
		default:
			e.fail(err)
		}
	}
}

// next returns a context for the wait of the first waiter, and what that wants. If there is none, it
// gives the session away, and returns a nil context.
func (e *entry) next(s *session) (ctx context.Context, m mode, try bool, _ *session) {
	e.db.mu.Lock()
	defer e.db.mu.Unlock()
	if e.stop != nil {
		e.stop()
		e.stop = nil
	}
	if e.headLocked() == nil {
		// This comes before serving is false: the next goroutine to acquire a lock shall find the session.
		e.db.mu.Unlock()
		e.db.putIdle(s)
		s = nil
		e.db.mu.Lock()
	}
	w := e.headLocked()
	if w == nil {
		e.serving = false
		delete(e.db.entries, e.name)
		return nil, 0, false, nil
	}
	ctx, e.stop = context.WithCancel(e.db.closing)
	e.asked = w.mode
	return ctx, w.mode, w.try, s
}

func (e *entry) session(ctx context.Context, try bool) (*session, error) {
	if s := e.db.takeIdle(); s != nil {
		return s, nil
	}
	s, err := e.db.connect(ctx, try)
	if err == nil {
		e.setTrouble(nil)
	}
	return s, err
}

// acquire acquires the lock from the server.
func (s *session) acquire(ctx context.Context, e *entry, m mode, try bool) (*grant, error) {
	e.setAsking(true)
	token, sent, err := s.lock(ctx, e.key, m, try)
	e.setAsking(false)
	if err != nil {
		return nil, err
	}
	s.used = true
	g := &grant{entry: e, session: s, mode: m, token: token, holds: make(map[*hold]struct{}, 1)}
	g.sent, g.joinUntil = sent, now().add(joinTime)
	g.deadline.Store(int64(g.deadlineAfter(sent)))
	return g, nil
}

func (e *entry) failTries(err error) {
	e.db.mu.Lock()
	defer e.db.mu.Unlock()
	e.failTriesLocked(err)
}

func (e *entry) setAsking(asking bool) {
	e.db.mu.Lock()
	defer e.db.mu.Unlock()
	e.asking = asking
}

func (e *entry) setTrouble(err error) {
	e.db.mu.Lock()
	defer e.db.mu.Unlock()
	e.trouble = err
}

func (e *entry) fail(err error) {
	e.db.mu.Lock()
	defer e.db.mu.Unlock()
	e.failLocked(err)
}
