package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/jackc/pgx/v5"
)

var errUnusable = errors.New("a transaction has left the session unusable")

// InTx calls fn in a transaction of the session that holds the lock whose hold ctx is the context of: the
// context of the function that [fasteners.WithLock] calls, or one derived from it. If fn returns nil, InTx
// commits the transaction, and otherwise rolls it back and returns the error of fn. If fn panics, the
// transaction is rolled back.
//
// The transaction can be committed only as long as the server holds the lock for the session. So what it
// writes was written under the lock, whatever has happened to this process or to the network. If InTx returns
// an error of the commit, it is not known whether that was done.
//
// The lock stays held while a statement runs, however long that takes, and if its context ends. Between
// two statements, fn must not take longer than the TTL: the server would end the session. Several calls
// of InTx in one session take turns, as those of readers of one process do; so one within fn would wait
// until its context is done.
//
// What fn sets in the session stays set for later holds. It must not change the timeouts of the session, or
// release its advisory locks, as DISCARD ALL does: use SET LOCAL.
//
// The error wraps [fasteners.ErrNotAcquired] if ctx is not the context of a hold, or that is released, and
// [fasteners.ErrLost] if the lock is lost.
func InTx(ctx context.Context, fn func(pgx.Tx) error) error {
	if ctx == nil || fn == nil {
		return &fs.PathError{Op: "transaction", Err: fs.ErrInvalid}
	}
	h, ok := ctx.Value(holdKey{}).(*hold)
	if !ok {
		return &fs.PathError{Op: "transaction", Err: fasteners.ErrNotAcquired}
	}
	b, err := h.borrow(ctx)
	if err != nil {
		return &fs.PathError{Op: "transaction", Path: h.grant.entry.name, Err: err}
	}
	defer close(b.back)
	return h.grant.session.inTx(ctx, fn)
}

// inTx does what pgx.BeginFunc does, but rolls back even if ctx is done: otherwise pgx closes the connection.
func (s *session) inTx(ctx context.Context, fn func(pgx.Tx) error) error {
	tx, err := s.conn.Begin(ctx)
	if err != nil {
		return err
	}
	// Deferred, since fn may panic or call runtime.Goexit. After a commit this does nothing.
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), s.db.options.ttl)
		defer cancel()
		_ = tx.Rollback(ctx)
	}()
	err = fn(tx)
	switch {
	case ctx.Err() == nil && err == nil:
		return tx.Commit(ctx)
	case ctx.Err() == nil:
		return err
	case err == nil:
		return contextError(ctx)
	}
	return &causedError{contextError(ctx), err}
}

// A borrower is a goroutine that wants the session of a grant for a transaction.
type borrower struct {
	lent chan struct{} // closed when it may use the session, or cannot any more: then err is set
	err  error
	back chan struct{} // closed when it no longer uses the session
}

// borrow waits until the session of the hold is lent to the caller.
func (h *hold) borrow(ctx context.Context) (*borrower, error) {
	g := h.grant
	mu := &g.entry.db.mu
	g.check()
	mu.Lock()
	switch {
	case h.released:
		mu.Unlock()
		return nil, fasteners.ErrNotAcquired
	case g.lost != nil:
		mu.Unlock()
		return nil, g.lost
	}
	b := &borrower{lent: make(chan struct{}), back: make(chan struct{})}
	g.borrowers = append(g.borrowers, b)
	g.interruptLocked()
	mu.Unlock()
	select {
	case <-b.lent:
		return b, b.err
	case <-ctx.Done():
	}
	mu.Lock()
	defer mu.Unlock()
	if i := slices.Index(g.borrowers, b); i >= 0 {
		g.borrowers = slices.Delete(g.borrowers, i, i+1)
	} else {
		close(b.back) // it has just been lent
	}
	return nil, contextError(ctx)
}

// lendLocked lends the session to the first borrower, and waits until that gives it back. Meanwhile another
// session asks the server about this one.
func (g *grant) lendLocked() {
	mu := &g.entry.db.mu
	b := g.borrowers[0]
	g.borrowers = g.borrowers[1:]
	g.session.lent.Store(true)
	close(b.lent)
	checkAt := g.sent.add(g.ttl() / 4)
	for back := false; !back; {
		ctx, cancel := context.WithTimeout(context.Background(), now().until(checkAt))
		g.interrupt = cancel
		mu.Unlock()
		select {
		case <-b.back:
			back = true
		case <-ctx.Done():
		}
		cancel()
		g.check()
		mu.Lock()
		g.interrupt = nil
		due := now() >= checkAt
		if due {
			checkAt = now().add(g.ttl() / 4)
		}
		if !back && g.lost == nil && (due || g.mayDepartLocked()) {
			g.watchLentLocked()
		}
	}
	g.session.lent.Store(false)
	if pg := g.session.conn.PgConn(); pg.IsClosed() || pg.IsBusy() || pg.TxStatus() != 'I' {
		mu.Unlock()
		g.lose(errUnusable)
		g.session.close()
		mu.Lock()
	}
}

// mayDepartLocked reports whether some hold of a session that is lent can be released: not the last one.
func (g *grant) mayDepartLocked() bool {
	return g.lost == nil && len(g.leaving) > 0 && len(g.leaving) < len(g.holds)
}

// watchLentLocked asks the server, in another session, whether the one that is lent has the lock, and extends
// the deadline if so. If it cannot ask, it leaves it at that.
func (g *grant) watchLentLocked() {
	mu := &g.entry.db.mu
	var leaving []*departure
	if g.mayDepartLocked() {
		leaving, g.leaving = g.leaving, nil
		for _, d := range leaving {
			delete(g.holds, d.hold)
		}
	}
	ctx, cancel := context.WithTimeout(g.entry.db.closing, max(0, now().until(g.serverEnd())))
	defer cancel()
	mu.Unlock()
	alive, held, err := g.askAbout(ctx)
	if err == nil && !held {
		g.lose(errEnded)
	}
	mu.Lock()
	if err == nil && held && alive > g.sent {
		g.extendLocked(alive)
	}
	if err != nil || !held {
		err = fmt.Errorf("%w: %w", fasteners.ErrLost, cmp.Or(err, errEnded))
	}
	for _, d := range leaving {
		d.result <- err
	}
}

// askAbout reports whether the session of the grant has the lock, and until when it was surely alive.
func (g *grant) askAbout(ctx context.Context) (alive instant, held bool, err error) {
	db := g.entry.db
	s := db.takeIdle()
	if s == nil {
		if s, err = db.connect(ctx, true); err != nil {
			return 0, false, err
		}
	}
	s.used = true
	alive = now()
	held, idle, err := s.watch(ctx, g.session, g.entry.key)
	if err != nil {
		s.close()
		return 0, false, err
	}
	db.putIdle(s)
	return alive.add(-idle), held, nil
}

// watch reports whether another session has the lock, and for how long it has been idle.
func (s *session) watch(ctx context.Context, other *session, key int64) (held bool, idle time.Duration, err error) {
	var seconds *float64
	err = s.conn.QueryRow(ctx, `SELECT
			EXISTS (SELECT FROM pg_locks AS l WHERE l.granted AND l.pid = a.pid AND `+isLock+`),
			CASE WHEN state LIKE 'idle%' THEN extract(epoch FROM clock_timestamp() - state_change)::float8
				WHEN state IN ('active', 'fastpath function call') THEN 0 END
			FROM pg_stat_activity AS a WHERE pid = $3 AND backend_start = $4`,
		int64(uint64(key)>>32), int64(uint32(key)), int32(other.pid), other.begin).Scan(&held, &seconds)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return false, 0, nil
	case err == nil && held && seconds == nil:
		err = errors.New("the server does not track activities")
	case err == nil && held:
		idle = time.Duration(max(0, *seconds) * float64(time.Second))
	}
	return held, idle, err
}
