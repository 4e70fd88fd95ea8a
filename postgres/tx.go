package postgres

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/lease"
	"github.com/jackc/pgx/v5"
)

// InTx calls fn in a transaction of the session that holds the lock whose hold
// ctx is the context of: the context of the function that [fasteners.WithLock]
// calls, or one derived from it. If fn returns nil, InTx commits the
// transaction, and otherwise rolls it back and returns the error of fn. If fn
// panics, the transaction is rolled back.
//
// The transaction can be committed only as long as the server holds the lock
// for the session. So what it writes was written under the lock, whatever has
// happened to this process or to the network. If InTx returns an error of the
// commit, it is not known whether that was done.
//
// The lock stays held while a statement runs, however long that takes, and if
// its context ends. Between two statements, fn must not take longer than the
// TTL: the server would end the session. Several calls of InTx in one session
// take turns, as those of readers of one process do; so one within fn would
// wait until its context is done.
//
// What fn sets in the session stays set for later holds. It must not change the
// timeouts of the session, or release its advisory locks, as DISCARD ALL does:
// use SET LOCAL.
//
// The error wraps [fasteners.ErrNotAcquired] if ctx is not the context of a
// hold, or that is released, and [fasteners.ErrLost] if the lock is lost.
func InTx(ctx context.Context, fn func(pgx.Tx) error) error {
	if ctx == nil || fn == nil {
		err := fmt.Errorf("nil context or function: %w", fs.ErrInvalid)
		return lease.PathError("transaction", "database", err)
	}
	h, ok := lease.HoldOf[*hold](ctx)
	if !ok {
		return lease.PathError("transaction", "database", fasteners.ErrNotAcquired)
	}
	name := h.grant.entry.name
	b, err := h.borrow(ctx)
	if err != nil {
		return lease.PathError("transaction", name, err)
	}
	defer close(b.back)
	// This does what pgx.BeginFunc does, but rolls back even if ctx is done:
	// otherwise pgx closes the connection.
	s := h.grant.session
	tx, err := s.conn.Begin(ctx)
	if err != nil {
		return lease.PathError("transaction", name, err)
	}
	// Deferred, since fn may panic or call runtime.Goexit. After a commit this
	// does nothing.
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), s.db.options.ttl)
		defer cancel()
		_ = tx.Rollback(ctx)
	}()
	err = fn(tx)
	switch {
	case ctx.Err() != nil:
		return lease.PathError("transaction", name, lease.WithCause(lease.ContextError(ctx), err))
	case err != nil:
		return err
	}
	return lease.PathError("transaction", name, tx.Commit(ctx))
}

// A borrower is a goroutine that wants the session of a grant for a
// transaction.
type borrower struct {
	lent chan struct{} // closed when it may use the session, or cannot any more: then err is set
	err  error
	back chan struct{} // closed when it no longer uses the session
}

// borrow waits until the session of the hold is lent to the caller.
func (h *hold) borrow(ctx context.Context) (*borrower, error) {
	g := h.grant
	mu := &g.entry.db.mu
	mu.Lock()
	err := g.lease.Err()
	if h.released {
		err = fasteners.ErrNotAcquired
	}
	if err != nil {
		mu.Unlock()
		return nil, err
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
	return nil, lease.ContextError(ctx)
}

// failBorrowersLocked ends the waits of those that want the session of a grant
// that is over.
func (g *grant) failBorrowersLocked() {
	for _, b := range g.borrowers {
		b.err = cmp.Or(g.lease.Err(), fasteners.ErrNotAcquired)
		close(b.lent)
	}
	g.borrowers = nil
}

// lend lends the session to a borrower until that gives it back. Meanwhile
// another session asks the server about this one.
func (g *grant) lend(b *borrower) {
	g.watchAt = g.signAt()
	g.session.lent.Store(true)
	close(b.lent)
	for do := g.nextLent(b); do != nil; do = g.nextLent(b) {
		do()
	}
	g.session.lent.Store(false)
	if pg := g.session.conn.PgConn(); pg.IsClosed() || pg.IsBusy() || pg.TxStatus() != 'I' {
		g.lease.Lose(errUnusable)
		g.session.close()
	}
}

// nextLent decides what is to be done next, without DB.mu, while the session is
// lent. It returns nil if the borrower has given it back.
func (g *grant) nextLent(b *borrower) (do func()) {
	g.entry.db.mu.Lock()
	defer g.entry.db.mu.Unlock()
	g.interruptLocked() // frees the context of the last wait
	select {
	case <-b.back:
		return nil
	default:
	}
	some := len(g.leaving) < g.holders // the last hold is released when the session is back
	switch {
	case g.lease.Err() != nil:
		return func() { <-b.back }
	case lease.Now() >= g.watchAt || len(g.leaving) > 0 && some:
		var leaving []chan<- error
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
	}
}

// watch asks the server, in another session, whether the one that is lent has
// the lock. If so, it extends the deadline, and releases holds. If it cannot
// ask, it leaves it at that.
func (g *grant) watch(leaving []chan<- error) {
	now := lease.Now()
	if now >= g.watchAt {
		g.watchAt = now + g.ttl()/4
	}
	ctx, cancel := context.WithTimeout(g.entry.db.closing, g.serverEnd()-now)
	defer cancel()
	alive, held, err := g.askAbout(ctx)
	switch {
	case err != nil:
		err = fmt.Errorf("%w: %w", fasteners.ErrLost, err)
	case held:
		g.lease.Renew(alive, g.ttl())
	default:
		g.lease.Lose(errEnded)
		err = g.lease.Err()
	}
	for _, result := range leaving {
		result <- err
	}
}

// askAbout reports whether the session of the grant has the lock, and until
// when it was surely alive.
func (g *grant) askAbout(ctx context.Context) (alive time.Duration, held bool, err error) {
	db := g.entry.db
	s, err := db.session(ctx, true)
	if err != nil {
		return 0, false, err
	}
	s.used = true
	alive = lease.Now()
	held, idle, err := s.watch(ctx, g.session, g.entry.key)
	if err != nil {
		s.close()
		return 0, false, err
	}
	db.putIdle(s)
	return alive - idle, held, nil
}
