package postgres

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/go-fasteners/fasteners/lease"
)

// A grant is a lock that the server has granted to a session, for one writer or
// for several readers.
//
// It is a lease: the server ends the session, and so releases the lock, when it
// has heard nothing for the TTL. So this process sends signs of life.
//
// One goroutine keeps the grant, and uses the session unless that is lent.
type grant struct {
	entry   *entry
	session *session
	mode    lease.Mode
	token   int64
	lease   *lease.Lease

	// On the clock of lease.Now; only the goroutine that keeps the grant uses
	// these.
	readAt  time.Duration // the end of the connection is noticed from then on
	checkAt time.Duration // if another session waits, the server is asked then whether it still does
	watchAt time.Duration // while the session is lent, the server is asked about it then

	// DB.mu protects these.
	holders   int
	joinUntil time.Duration  // readers become holders without asking the server
	unlocking bool           // nobody becomes a holder any more
	handed    bool           // the lock is lost, and another goroutine serves the queue
	over      bool           // the lock is released, or the session is closed
	leaving   []chan<- error // the results of the holders that are being released
	borrowers []*borrower
	interrupt context.CancelFunc // ends the wait of the goroutine that keeps the grant
}

const (
	// Readers of one process that overlap could keep the writers of others
	// waiting forever. So after this time a new one becomes a holder only if
	// the server says that nobody waits.
	joinTime = 50 * time.Millisecond

	// If somebody waits, the readers that wait for that ask again, as it may
	// have given up.
	checkInterval = time.Second

	// Most holds are short. Interrupting a read takes longer than waiting for
	// so long before it.
	readAfter = time.Millisecond
)

// newGrant returns the grant of a lock that the server has granted in its
// answer to what was sent then.
func newGrant(e *entry, s *session, m lease.Mode, token int64, sent time.Duration) *grant {
	o, now := &e.db.options, lease.Now()
	return &grant{
		entry: e, session: s, mode: m, token: token, lease: lease.New(sent, o.ttl, o.margin),
		readAt: now + readAfter, joinUntil: now + joinTime,
	}
}

func (g *grant) ttl() time.Duration { return g.entry.db.options.ttl }

// serverEnd is when the server has ended the session, unless it has heard a
// later sign of life than was answered.
func (g *grant) serverEnd() time.Duration { return g.lease.Deadline() + g.entry.db.options.margin }

// signAt is a quarter of the TTL after the last sign of life that was answered.
func (g *grant) signAt() time.Duration { return g.serverEnd() - g.ttl()*3/4 }

// keep serves the holders until the last one has released the lock, or the lock
// is lost and the server has ended the session. It reports whether the lock is
// lost. Then another goroutine serves the queue.
func (g *grant) keep() (lost bool) {
	noted := make(chan struct{})
	stop := context.AfterFunc(g.lease.Context(), func() {
		defer close(noted)
		g.noteLoss()
	})
	for do := g.next(); do != nil; do = g.next() {
		do()
	}
	g.lease.Close()
	if stop() {
		return false
	}
	<-noted
	return true
}

// next decides what is to be done next, without DB.mu. It returns nil if the
// grant is over.
func (g *grant) next() (do func()) {
	db := g.entry.db
	db.mu.Lock()
	defer db.mu.Unlock()
	g.interruptLocked() // frees the context of the last wait
	lost, wakeAt := g.lease.Err() != nil, g.signAt()
	head := g.entry.headLocked()
	// The first waiter may share the lock with its holders.
	reader := g.mode == lease.Shared && head != nil && head.mode == lease.Shared
	switch now := lease.Now(); {
	case g.over:
		g.failBorrowersLocked()
		return nil
	case g.session.conn.IsClosed():
		return g.end
	case len(g.leaving) > 0 || g.holders == 0:
		return g.depart
	case lost && (now >= g.serverEnd() || db.closed):
		return g.end
	case !lost && now >= g.signAt():
		return func() { _ = g.call(g.session.signOfLife) }
	case !lost && reader && (head.try || now < g.joinUntil || now >= g.checkAt):
		return g.admit
	case len(g.borrowers) > 0:
		b := g.borrowers[0]
		g.borrowers = g.borrowers[1:]
		return func() { g.lend(b) }
	case lost:
		// The session is not closed before the server ends it: the margin is
		// for the holders.
		wakeAt = g.serverEnd()
	case reader:
		wakeAt = min(wakeAt, g.checkAt)
	}
	wait := g.interruptibleLocked(db.closing, wakeAt)
	return func() { g.wait(wait) }
}

// interruptibleLocked returns the context of a wait of the goroutine that keeps
// the grant.
func (g *grant) interruptibleLocked(parent context.Context, end time.Duration) context.Context {
	wait, cancel := context.WithTimeout(parent, end-lease.Now())
	g.interrupt = cancel
	return wait
}

// interruptLocked makes the goroutine that keeps the grant decide anew what is
// to be done.
func (g *grant) interruptLocked() {
	if g.interrupt != nil {
		g.interrupt()
	}
}

// call calls fn, which sends a statement in the session: a sign of life, if it
// is answered. An error closes the session, and call returns that the lock is
// lost. Before the server has ended the session, fn is not interrupted: that
// would close it.
func (g *grant) call(fn func(context.Context) error) error {
	sent := lease.Now()
	ctx, cancel := context.WithTimeout(g.entry.db.closing, g.serverEnd()-sent)
	defer cancel()
	if err := fn(ctx); err != nil {
		g.lease.Lose(err) // first: closing the session releases the lock
		g.session.close()
		return g.lease.Err()
	}
	g.lease.Renew(sent, g.ttl())
	return nil
}

// depart releases holds, and with the last one the lock. Each release waits for
// an answer of the server, which proves that the session has had the lock until
// then.
func (g *grant) depart() {
	mu := &g.entry.db.mu
	mu.Lock()
	leaving := g.takeLeavingLocked()
	last := g.holders == 0
	g.unlocking = last
	mu.Unlock()

	release := g.session.signOfLife
	if last {
		release = func(ctx context.Context) error { return g.session.unlock(ctx, g.entry.key, g.mode) }
	}
	err := g.call(release)

	mu.Lock()
	defer mu.Unlock()
	if err == nil && last {
		g.over = true
		if g.entry.grant == g {
			g.entry.grant = nil
		}
	}
	for _, result := range leaving {
		result <- err
	}
}

// takeLeavingLocked returns the results of the holders that are being released,
// which are none any more.
func (g *grant) takeLeavingLocked() []chan<- error {
	leaving := g.leaving
	g.holders -= len(leaving)
	g.leaving = nil
	return leaving
}

// end closes the session of a lock that is lost.
func (g *grant) end() {
	g.lease.Lose(errEnded)
	g.session.close()
	g.entry.db.mu.Lock()
	defer g.entry.db.mu.Unlock()
	g.over = true
	for _, result := range g.takeLeavingLocked() {
		result <- g.lease.Err()
	}
}

// admit makes the readers at the head of the queue holders, unless another
// session waits for the lock.
func (g *grant) admit() {
	e := g.entry
	asks, waits := lease.Now() >= g.joinUntil, false
	if asks {
		err := g.call(func(ctx context.Context) (err error) {
			waits, err = g.session.contended(ctx, e.key)
			return err
		})
		if err != nil {
			return
		}
	}
	e.db.mu.Lock()
	defer e.db.mu.Unlock()
	if waits {
		g.checkAt = lease.Now() + checkInterval
		e.failTriesLocked(lease.ErrBusy)
		return
	}
	if asks {
		g.joinUntil = lease.Now() + joinTime
	}
	if g.lastsLocked() {
		e.admitLocked(g)
	}
}

// lastsLocked reports whether somebody may become a holder.
func (g *grant) lastsLocked() bool { return !g.unlocking && g.lease.Err() == nil }

// wait waits until its context is done or the connection ends.
func (g *grant) wait(ctx context.Context) {
	if lease.Now() < g.readAt {
		_ = sleep(ctx, readAfter)
		return
	}
	if _, err := g.session.conn.WaitForNotification(ctx); g.session.conn.IsClosed() {
		g.lease.Lose(err)
	}
}

// noteLoss is called when the lock is lost, while others may use the session.
func (g *grant) noteLoss() {
	db := g.entry.db
	db.mu.Lock()
	g.handOverLocked()
	g.interruptLocked()
	db.mu.Unlock()
	if err := g.lease.Err(); !errors.Is(err, ErrClosed) {
		db.engine.Log(slog.LevelWarn, "lost the lock", g.entry.name, err)
	}
}

// handOverLocked makes another goroutine serve the queue, since the lock is
// lost. The one that keeps the grant only waits for the holders from now on.
func (g *grant) handOverLocked() {
	if g.handed {
		return
	}
	g.handed = true
	e := g.entry
	e.grant, e.serving = nil, false
	if e.queue.Len() > 0 {
		e.serveLocked()
	} else {
		delete(e.db.entries, e.name)
	}
}
