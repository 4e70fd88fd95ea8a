package postgres

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"slices"

	"github.com/go-fasteners/fasteners"
	"github.com/jackc/pgx/v5"
)

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

// failBorrowersLocked ends the waits of those that want the session of a grant that is over.
func (g *grant) failBorrowersLocked() {
	for _, b := range g.borrowers {
		b.err = cmp.Or(g.lost, fasteners.ErrNotAcquired)
		close(b.lent)
	}
	g.borrowers = nil
}

// lend lends the session to the first borrower until that gives it back. Meanwhile another session asks the
// server about this one.
func (g *grant) lend() {
	mu := &g.entry.db.mu
	mu.Lock()
	if len(g.borrowers) == 0 { // it has given up
		mu.Unlock()
		return
	}
	b := g.borrowers[0]
	g.borrowers = g.borrowers[1:]
	g.watchAt = g.sent.add(g.ttl() / 4)
	mu.Unlock()

	g.session.lent.Store(true)
	close(b.lent)
	for do := g.nextLent(b); do != nil; do = g.nextLent(b) {
		do()
	}
	g.session.lent.Store(false)
	if pg := g.session.conn.PgConn(); pg.IsClosed() || pg.IsBusy() || pg.TxStatus() != 'I' {
		g.lose(errUnusable)
		g.session.close()
	}
}

// nextLent decides what is to be done next, without DB.mu, while the session is lent. It returns nil if the
// borrower has given it back.
func (g *grant) nextLent(b *borrower) (do func()) {
	g.entry.db.mu.Lock()
	defer g.entry.db.mu.Unlock()
	g.interruptLocked() // frees the context of the last wait
	select {
	case <-b.back:
		return nil
	default:
	}
	some := len(g.leaving) < len(g.holds) // the last hold is released when the session is back
	switch now := now(); {
	case g.lost != nil:
		return func() { <-b.back }
	case now >= g.watchAt || len(g.leaving) > 0 && some:
		var leaving []*departure
		if some {
			leaving = g.takeLeavingLocked()
		}
		return func() { g.watch(leaving) }
	}
	wait := g.interruptibleLocked(context.Background(), g.watchAt)
	return func() {
		select {
		case <-b.back:
		case <-wait.Done():
		}
		g.check()
	}
}

// watch asks the server, in another session, whether the one that is lent has the lock. If so, it extends
// the deadline, and releases holds. If it cannot ask, it leaves it at that.
func (g *grant) watch(leaving []*departure) {
	if now() >= g.watchAt {
		g.watchAt = now().add(g.ttl() / 4)
	}
	ctx, cancel := context.WithTimeout(g.entry.db.closing, max(0, now().until(g.serverEnd())))
	defer cancel()
	alive, held, err := g.askAbout(ctx)
	switch {
	case err != nil:
		err = fmt.Errorf("%w: %w", fasteners.ErrLost, err)
	case held:
		g.extend(alive)
	default:
		err = g.lose(errEnded)
	}
	for _, d := range leaving {
		d.result <- err
	}
}

// askAbout reports whether the session of the grant has the lock, and until when it was surely alive.
func (g *grant) askAbout(ctx context.Context) (alive instant, held bool, err error) {
	db := g.entry.db
	s, err := db.session(ctx, true)
	if err != nil {
		return 0, false, err
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
