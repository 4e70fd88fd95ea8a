package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-fasteners/fasteners"
)

// A grant is a lock that the server has granted to a session, for one writer or for several readers.
//
// It is a lease: the server ends the session, and so releases the lock, when it has heard nothing for the
// TTL. So this process sends signs of life, and takes the lock for lost a margin before the server can
// have released it. It counts from the time when it has sent what the server has answered last: the
// answer may have been on its way for as long as that.
//
// One goroutine keeps the grant, and uses the session unless that is lent.
type grant struct {
	entry   *entry
	session *session
	mode    mode
	token   int64

	deadline atomic.Int64 // an instant, after which the lock is taken for lost
	timer    *time.Timer  // for the deadline

	// Only the goroutine that keeps the grant uses these.
	readAt  instant // the end of the connection is noticed from then on
	checkAt instant // if another session waits, the server is asked then whether it still does
	watchAt instant // while the session is lent, the server is asked about it then

	// DB.mu protects these.
	sent      instant // of the last sign of life that was answered
	holds     map[*hold]struct{}
	joinUntil instant // readers become holders without asking the server
	unlocking bool    // nobody becomes a holder any more
	lost      error   // why the lock is taken for lost, or nil
	over      bool    // the lock is released, or the session is closed
	leaving   []*departure
	borrowers []*borrower
	interrupt context.CancelFunc // ends the wait of the goroutine that keeps the grant
}

// A departure is a hold that is being released.
type departure struct {
	hold   *hold
	result chan error
}

const (
	// Readers of one process that overlap could keep the writers of others waiting forever. So after this
	// time a new one becomes a holder only if the server says that nobody waits.
	joinTime = 50 * time.Millisecond

	// If somebody waits, the readers that wait for that ask again, as it may have given up.
	checkInterval = time.Second

	// Most holds are short. Interrupting a read takes longer than waiting for so long before it.
	readAfter = time.Millisecond
)

// newGrant returns the grant of a lock that the server has granted in its answer to what was sent at an
// instant.
func newGrant(e *entry, s *session, m mode, token int64, sent instant) *grant {
	g := &grant{entry: e, session: s, mode: m, token: token, sent: sent, holds: make(map[*hold]struct{}, 1)}
	g.readAt, g.joinUntil = now().add(readAfter), now().add(joinTime)
	g.deadline.Store(int64(g.deadlineAfter(sent)))
	g.timer = time.AfterFunc(now().until(g.deadlineAfter(sent)), g.expire)
	return g
}

func (g *grant) ttl() time.Duration { return g.entry.db.options.ttl }

func (g *grant) deadlineAfter(sent instant) instant {
	return sent.add(g.ttl() - g.entry.db.options.margin)
}

// serverEnd is an instant at which the server has ended the session, unless it has heard a later sign of life
// than was answered.
func (g *grant) serverEnd() instant {
	return instant(g.deadline.Load()).add(g.entry.db.options.margin)
}

// keep serves the holders until the last one has released the lock, or the lock is lost and the server has
// ended the session. It reports whether the lock is lost.
func (g *grant) keep() (lost bool) {
	for do := g.next(); do != nil; do = g.next() {
		do()
	}
	g.timer.Stop()
	g.entry.db.mu.Lock()
	defer g.entry.db.mu.Unlock()
	return g.lost != nil
}

// next decides what is to be done next, without DB.mu. It returns nil if the grant is over.
func (g *grant) next() (do func()) {
	db := g.entry.db
	db.mu.Lock()
	defer db.mu.Unlock()
	g.interruptLocked() // frees the context of the last wait
	signAt := g.sent.add(g.ttl() / 4)
	wakeAt := signAt
	head := g.entry.headLocked()
	reader := g.mode == shared && head != nil && head.mode == shared // it may share the lock
	switch now := now(); {
	case g.over:
		g.failBorrowersLocked()
		return nil
	case g.session.conn.IsClosed():
		return g.end
	case len(g.leaving) > 0 || len(g.holds) == 0:
		return g.depart
	case g.lost != nil && (now >= g.serverEnd() || db.closed):
		return g.end
	case g.lost == nil && now >= signAt:
		return func() { _ = g.call(g.session.signOfLife) }
	case g.lost == nil && reader && (head.try || now < g.joinUntil || now >= g.checkAt):
		return g.admit
	case len(g.borrowers) > 0:
		return g.lend
	case g.lost != nil:
		// The session is not closed before the server ends it: the margin is for the holders.
		wakeAt = g.serverEnd()
	case reader:
		wakeAt = min(signAt, g.checkAt)
	}
	wait := g.interruptibleLocked(db.closing, wakeAt)
	return func() { g.wait(wait) }
}

// interruptibleLocked returns the context of a wait of the goroutine that keeps the grant.
func (g *grant) interruptibleLocked(parent context.Context, end instant) (wait context.Context) {
	wait, g.interrupt = context.WithTimeout(parent, now().until(end))
	return wait
}

// interruptLocked makes the goroutine that keeps the grant decide anew what is to be done.
func (g *grant) interruptLocked() {
	if g.interrupt != nil {
		g.interrupt()
	}
}

// call calls fn, which sends a statement in the session. The answer is a sign of life of the server.
// An error closes the session, and call returns that the lock is lost. Before the server has ended the
// session, fn is not interrupted: that would close it.
func (g *grant) call(fn func(context.Context) error) error {
	sent := now()
	ctx, cancel := context.WithTimeout(g.entry.db.closing, max(sent.until(g.serverEnd()), 0))
	defer cancel()
	if err := fn(ctx); err != nil {
		lost := g.lose(err) // first: closing the session releases the lock
		g.session.close()
		return lost
	}
	g.extend(sent)
	return nil
}

// extend notes a sign of life that was answered. One that is answered after the deadline comes too late.
func (g *grant) extend(sent instant) {
	g.entry.db.mu.Lock()
	defer g.entry.db.mu.Unlock()
	if sent > g.sent && g.lost == nil && now() < instant(g.deadline.Load()) {
		g.sent = sent
		g.deadline.Store(int64(g.deadlineAfter(sent)))
	}
}

// depart releases holds, and with the last one the lock. Each release waits for an answer of the
// server, which proves that the session has had the lock until then.
func (g *grant) depart() {
	db := g.entry.db
	db.mu.Lock()
	leaving := g.takeLeavingLocked()
	g.unlocking = len(g.holds) == 0
	last := g.unlocking
	db.mu.Unlock()

	release := g.session.signOfLife
	if last {
		release = func(ctx context.Context) error { return g.session.unlock(ctx, g.entry.key, g.mode) }
	}
	err := g.call(release)

	db.mu.Lock()
	defer db.mu.Unlock()
	if err == nil && last {
		g.over = true
		if g.entry.grant == g {
			g.entry.grant = nil
		}
	}
	for _, d := range leaving {
		d.result <- err
	}
}

// takeLeavingLocked takes those that are being released out of the holds.
func (g *grant) takeLeavingLocked() []*departure {
	leaving := g.leaving
	g.leaving = nil
	for _, d := range leaving {
		delete(g.holds, d.hold)
	}
	return leaving
}

// end closes the session of a lock that is lost.
func (g *grant) end() {
	lost := g.lose(errEnded)
	g.session.close()
	g.entry.db.mu.Lock()
	defer g.entry.db.mu.Unlock()
	g.over = true
	for _, d := range g.takeLeavingLocked() {
		d.result <- lost
	}
}

// admit makes the readers at the head of the queue holders, unless another session waits for the lock.
func (g *grant) admit() {
	e := g.entry
	asks, waits := now() >= g.joinUntil, false
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
		g.checkAt = now().add(checkInterval)
		e.failTriesLocked(errBusy)
		return
	}
	if asks {
		g.joinUntil = now().add(joinTime)
	}
	if g.lastsLocked() {
		e.admitLocked(g)
	}
}

// lastsLocked reports whether somebody may become a holder. After this process was stopped, the timer may not
// have run yet.
func (g *grant) lastsLocked() bool {
	return g.lost == nil && !g.unlocking && now() < instant(g.deadline.Load())
}

// wait waits until its context is done or the connection ends.
func (g *grant) wait(ctx context.Context) {
	var err error
	if now() < g.readAt {
		_ = sleep(ctx, readAfter)
	} else {
		_, err = g.session.conn.WaitForNotification(ctx)
	}
	if g.session.conn.IsClosed() {
		g.lose(err)
	}
	g.check()
}

// expire is called by the timer. The deadline may have been extended meanwhile.
func (g *grant) expire() {
	g.check()
	g.entry.db.mu.Lock()
	defer g.entry.db.mu.Unlock()
	if g.lost == nil && !g.over {
		g.timer.Reset(max(0, now().until(instant(g.deadline.Load()))))
	}
}

// check takes the lock for lost if its deadline has passed.
func (g *grant) check() {
	if now() >= instant(g.deadline.Load()) {
		g.lose(errSilent)
	}
}

// lose takes the lock for lost, unless it is over, and ends the contexts of its holders. It returns why the
// lock is lost.
func (g *grant) lose(err error) error {
	e := g.entry
	e.db.mu.Lock()
	if g.lost != nil || g.over {
		defer e.db.mu.Unlock()
		return g.lost
	}
	g.lost = fmt.Errorf("%w: %w", fasteners.ErrLost, err)
	lost, holds := g.lost, slices.Collect(maps.Keys(g.holds))
	g.interruptLocked()
	// The goroutine that keeps g has served the queue. From now on it only waits for the holders.
	e.grant, e.serving = nil, false
	if e.queue.Len() > 0 {
		e.serveLocked()
	} else {
		delete(e.db.entries, e.name)
	}
	e.db.mu.Unlock()
	for _, h := range holds {
		h.end()
	}
	e.db.log(slog.LevelInfo, "lost", e.name, err)
	return lost
}
