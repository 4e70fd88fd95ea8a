package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
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
// DB.mu protects what is not atomic. The goroutine that keeps the grant uses the session.
type grant struct {
	entry   *entry
	session *session
	mode    mode
	token   int64

	deadline atomic.Int64 // an instant, after which the lock is taken for lost
	timer    *time.Timer  // for the deadline

	sent      instant // of the last sign of life that was answered
	holds     map[*hold]struct{}
	readAt    instant // the end of the connection is noticed from then on
	joinUntil instant // readers become holders without asking the server
	checkAt   instant // the server is asked again then
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

	// Most holds are short. To interrupt a read takes longer than to wait for so long before it.
	readAfter = time.Millisecond
)

var (
	errSilent = errors.New("the server has not answered in time")
	errEnded  = errors.New("the session of the lock is closed")
)

func (g *grant) ttl() time.Duration { return g.entry.db.options.ttl }

func (g *grant) deadlineAfter(sent instant) instant {
	return sent.add(g.ttl() - g.entry.db.options.margin)
}

// keep serves those who hold the lock until the last one has released it. It reports whether the lock is
// lost.
func (e *entry) keep(g *grant) (lost bool) {
	db := e.db
	db.mu.Lock()
	defer db.mu.Unlock()
	g.timer = time.AfterFunc(now().until(instant(g.deadline.Load())), g.expire)
	defer g.timer.Stop()
	g.readAt = now().add(readAfter)
	g.unlocking = !e.becomeHeldLocked(g)
	for !g.over {
		switch now := now(); {
		case g.session.conn.IsClosed():
			g.endLocked()
		case len(g.leaving) > 0 || len(g.holds) == 0:
			g.departLocked()
		case g.lost != nil && (now >= g.serverEnd() || db.closed):
			g.endLocked()
		case g.lost == nil && now >= g.sent.add(g.ttl()/4):
			g.signLocked()
		case g.lost == nil && g.wantsCheckLocked(now):
			g.checkLocked()
		case len(g.borrowers) > 0:
			g.lendLocked()
		case g.lost != nil:
			// The session is not closed before the server ends it: the margin is for the holders.
			g.waitLocked(now.until(g.serverEnd()))
		default:
			g.waitLocked(min(now.until(g.sent.add(g.ttl()/4)), g.untilCheckLocked(now)))
		}
	}
	for _, b := range g.borrowers {
		b.err = cmp.Or(g.lost, fasteners.ErrNotAcquired)
		close(b.lent)
	}
	g.borrowers = nil
	return g.lost != nil
}

// serverEnd is an instant at which the server has ended the session, unless it has heard a later sign of life
// than was answered.
func (g *grant) serverEnd() instant {
	return instant(g.deadline.Load()).add(g.entry.db.options.margin)
}

// callLocked calls fn, which uses the session, without DB.mu. An error closes the session, and the lock
// is lost. Before the server has ended the session, fn is not interrupted: that would close it.
func (g *grant) callLocked(fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(g.entry.db.closing, max(now().until(g.serverEnd()), 0))
	defer cancel()
	g.entry.db.mu.Unlock()
	err := fn(ctx)
	if err != nil {
		g.lose(err) // first: closing the session releases the lock
		g.session.close()
	}
	g.entry.db.mu.Lock()
	return err
}

// lastsLocked reports whether somebody may become a holder. After this process was stopped, the timer may not
// have run yet.
func (g *grant) lastsLocked() bool {
	return g.lost == nil && !g.unlocking && now() < instant(g.deadline.Load())
}

// extendLocked notes a sign of life that was answered. One that is answered after the deadline comes too
// late.
func (g *grant) extendLocked(sent instant) {
	if g.lost == nil && now() < instant(g.deadline.Load()) {
		g.sent = sent
		g.deadline.Store(int64(g.deadlineAfter(sent)))
	}
}

func (g *grant) signLocked() {
	var sent instant
	err := g.callLocked(func(ctx context.Context) (err error) {
		sent, err = g.session.signOfLife(ctx)
		return err
	})
	if err == nil {
		g.extendLocked(sent)
	}
}

// waitLocked waits for at most d, until there is something to do or the connection ends.
func (g *grant) waitLocked(d time.Duration) {
	ctx, cancel := context.WithTimeout(g.entry.db.closing, d)
	g.interrupt = cancel
	first := now() < g.readAt
	g.entry.db.mu.Unlock()
	var err error
	if first {
		_ = sleep(ctx, readAfter)
	} else {
		_, err = g.session.conn.WaitForNotification(ctx)
	}
	cancel()
	if g.session.conn.IsClosed() {
		g.lose(err)
	}
	g.check()
	g.entry.db.mu.Lock()
	g.interrupt = nil
}

func (g *grant) interruptLocked() {
	if g.interrupt != nil {
		g.interrupt()
	}
}

// departLocked releases holds, and with the last one the lock. Each release waits for an answer of the
// server, which proves that the session has had the lock until then.
func (g *grant) departLocked() {
	leaving := g.leaving
	g.leaving = nil
	for _, d := range leaving {
		delete(g.holds, d.hold)
	}
	last := len(g.holds) == 0
	g.unlocking = g.unlocking || last
	var sent instant
	err := g.callLocked(func(ctx context.Context) (err error) {
		if last {
			return g.session.unlock(ctx, g.entry.key, g.mode)
		}
		sent, err = g.session.signOfLife(ctx)
		return err
	})
	switch {
	case err != nil:
		err = g.lost
	case last:
		g.over = true
		if g.entry.grant == g {
			g.entry.grant = nil
		}
		if g.lost != nil { // nobody else uses the session any more
			g.entry.db.mu.Unlock()
			g.entry.db.putIdle(g.session)
			g.entry.db.mu.Lock()
		}
	default:
		g.extendLocked(sent)
	}
	for _, d := range leaving {
		d.result <- err
	}
}

// endLocked closes the session of a lock that is lost.
func (g *grant) endLocked() {
	g.entry.db.mu.Unlock()
	g.lose(errEnded)
	g.session.close()
	g.entry.db.mu.Lock()
	g.over = true
	for _, d := range g.leaving {
		delete(g.holds, d.hold)
		d.result <- g.lost
	}
}

// wantsCheckLocked reports whether a reader at the head of the queue may share the lock with its holders.
func (g *grant) wantsCheckLocked(now instant) bool {
	w := g.entry.headLocked()
	return g.mode == shared && !g.unlocking && w != nil && w.mode == shared &&
		(w.try || now < g.joinUntil || now >= g.checkAt)
}

func (g *grant) untilCheckLocked(now instant) time.Duration {
	if w := g.entry.headLocked(); g.mode == shared && w != nil && w.mode == shared {
		return max(0, now.until(g.checkAt))
	}
	return g.ttl()
}

// checkLocked makes the readers at the head of the queue holders, unless another session waits for the lock.
func (g *grant) checkLocked() {
	if now() >= g.joinUntil {
		var waits bool
		var sent instant
		err := g.callLocked(func(ctx context.Context) (err error) {
			waits, sent, err = g.session.contended(ctx, g.entry.key)
			return err
		})
		if err != nil {
			return
		}
		g.extendLocked(sent)
		if waits {
			g.checkAt = now().add(checkInterval)
			g.entry.failTriesLocked(errBusy)
			return
		}
		g.joinUntil = now().add(joinTime)
	}
	if g.lastsLocked() {
		g.entry.admitLocked(g)
	}
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

// lose takes the lock for lost, and ends the contexts of its holders.
func (g *grant) lose(err error) {
	db := g.entry.db
	db.mu.Lock()
	first := g.lost == nil && !g.over
	holds := g.loseLocked(err)
	db.mu.Unlock()
	for _, h := range holds {
		h.end()
	}
	if first {
		db.log(slog.LevelInfo, "lost", g.entry.name, err)
	}
}

// loseLocked takes the lock for lost. The caller has to end the contexts of the holds that it returns.
func (g *grant) loseLocked(err error) (holds []*hold) {
	if g.lost != nil || g.over {
		return nil
	}
	g.lost = fmt.Errorf("%w: %w", fasteners.ErrLost, err)
	for h := range g.holds {
		holds = append(holds, h)
	}
	g.interruptLocked()
	// The goroutine that keeps g has served the queue. From now on it only waits for the holders.
	e := g.entry
	e.grant, e.serving = nil, false
	if e.queue.Len() > 0 {
		e.serveLocked()
	} else {
		delete(e.db.entries, e.name)
	}
	return holds
}
