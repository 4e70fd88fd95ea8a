package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/go-fasteners/fasteners"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

var (
	errExpired    = fmt.Errorf("%w: no answer from etcd in time to keep the lease alive", fasteners.ErrLost)
	errLeaseGone  = fmt.Errorf("%w: etcd has no such lease any more", fasteners.ErrLost)
	errKeyGone    = fmt.Errorf("%w: its key in etcd is gone", fasteners.ErrLost)
	errNoCleanup  = fmt.Errorf("%w: cannot delete the key of a canceled acquire", fasteners.ErrLost)
	errNoDeletion = fmt.Errorf("%w: no answer from etcd in time to the release", fasteners.ErrLost)
)

// A lease keeps the keys of its session in etcd. It has a deadline, before which etcd cannot have ended
// it. Once it is lost it remains so, even if etcd still knows it: the holders have been told.
//
// The time of a lease begins anew in etcd when a sign of life arrives, which is after it was sent. So the
// deadline is the time at which the last sign was sent that was answered, and the TTL, and less the
// margin. To count from when the answer arrived would be wrong: it can have been on its way for any time.
type lease struct {
	session *Session
	id      clientv3.LeaseID
	ttl     time.Duration // as granted
	margin  time.Duration

	ctx    context.Context // done when the lease is lost; its cause wraps ErrLost
	cancel context.CancelCauseFunc

	mu       sync.Mutex
	deadline time.Duration // on the clock of now
	timer    *time.Timer   // at the deadline
	holds    map[*hold]struct{}
	barriers map[string]int64 // by the name of a lock: see barrier.go
	numbers  uint64           // of keys that were used
	free     []uint64         // those that can be used again
}

func newLease(s *Session, id clientv3.LeaseID, ttl, sent time.Duration) *lease {
	l := &lease{session: s, id: id, ttl: ttl, margin: s.options.margin, holds: map[*hold]struct{}{}, barriers: map[string]int64{}}
	if l.margin == 0 {
		l.margin = ttl / 10
	}
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	l.mu.Lock() // the deadline can be over already
	defer l.mu.Unlock()
	l.deadline = sent + ttl - l.margin
	l.timer = time.AfterFunc(l.deadline-now(), l.expire)
	return l
}

// expire is called by the timer, which has another clock, and may have been set again meanwhile.
func (l *lease) expire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if left := l.deadline - now(); left > 0 && l.ctx.Err() == nil {
		l.timer.Reset(left)
		return
	}
	l.endLocked(errExpired)
}

// err returns why the lease is lost, and nil if it is not. It looks at the clock, since after a pause of
// the process or the machine the timer is late.
func (l *lease) err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now() >= l.deadline {
		l.endLocked(errExpired)
	}
	return context.Cause(l.ctx)
}

// end makes the lease lost. When it returns, the contexts of all holds are done.
func (l *lease) end(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.endLocked(cause)
}

func (l *lease) endLocked(cause error) {
	if l.ctx.Err() != nil {
		return
	}
	l.timer.Stop()
	for h := range l.holds {
		h.lose(cause)
	}
	l.cancel(cause)
}

// extend sets the deadline, unless it is over: an answer that comes later does not bring back what was
// taken to be lost.
func (l *lease) extend(deadline time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := now()
	if l.ctx.Err() == nil && t < l.deadline && deadline > l.deadline {
		l.deadline = deadline
		l.timer.Reset(deadline - t)
	}
}

// add adds a hold that is lost with the lease, and reports whether the lease is not lost already.
func (l *lease) add(h *hold) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now() >= l.deadline {
		l.endLocked(errExpired)
	}
	if l.ctx.Err() != nil {
		return false
	}
	l.holds[h] = struct{}{}
	return true
}

func (l *lease) remove(h *hold) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.holds, h)
}

// takeNumber returns a number for a key that no other key has.
func (l *lease) takeNumber() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if last := len(l.free) - 1; last >= 0 {
		number := l.free[last]
		l.free = l.free[:last]
		return number
	}
	l.numbers++
	return l.numbers
}

// putBack lets the number be used again. Its key must be gone, and every request about it answered: one
// that arrives late could create the next key with this number, or delete it.
func (l *lease) putBack(number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.free = append(l.free, number)
}

// keepAlive sends signs of life until the lease is lost. If there is no answer to one, it sends another,
// which goes to another member, and still takes the answer to the first: it does not know whether the
// connection is dead, or the network slow.
func (l *lease) keepAlive() {
	var sent time.Duration
	for due := now() + l.ttl/4; ; due = sent + l.ttl/4 {
		if sleep(l.ctx, due-now()) {
			sent = l.signsOfLife()
		}
		if l.err() != nil {
			break
		}
	}
	if cause := context.Cause(l.ctx); cause != errLostByClose {
		l.session.log(slog.LevelWarn, "lost the lease", cause)
	}
}

// signsOfLife sends signs of life until one is answered, and returns when that one was sent.
func (l *lease) signsOfLife() (sent time.Duration) {
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	answers := make(chan time.Duration)
	for {
		l.session.start(func() { l.signOfLife(ctx, answers) })
		again := time.NewTimer(max(l.ttl/12, 200*time.Millisecond))
		select {
		case <-again.C:
			_ = l.err()
		case sent := <-answers:
			again.Stop()
			return sent
		case <-ctx.Done():
			return 0
		}
	}
}

func (l *lease) signOfLife(ctx context.Context, answers chan<- time.Duration) {
	sent := now()
	resp, err := l.session.client.KeepAliveOnce(ctx, l.id)
	switch {
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		l.end(errLeaseGone)
	case err == nil:
		l.extend(sent + time.Duration(resp.TTL)*time.Second - l.margin)
		select {
		case answers <- sent:
		case <-ctx.Done():
		}
	}
}
