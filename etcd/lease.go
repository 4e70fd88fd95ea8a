package etcd

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/go-fasteners/fasteners/lease"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A sessionLease keeps the keys of its session in etcd.
type sessionLease struct {
	*lease.Lease
	session *Session
	id      clientv3.LeaseID
	ttl     time.Duration // as granted

	mu       sync.Mutex
	barriers map[string]int64 // by the name of a lock: see barrier.go
	numbers  uint64           // of keys that were used
	free     []uint64         // those that can be used again
}

func newLease(s *Session, id clientv3.LeaseID, ttl, sent time.Duration) *sessionLease {
	margin := s.options.margin
	if margin == 0 {
		margin = ttl / 10
	}
	return &sessionLease{
		Lease:    lease.New(sent, ttl, margin),
		session:  s,
		id:       id,
		ttl:      ttl,
		barriers: map[string]int64{},
	}
}

// takeNumber returns a number for a key that no other key has.
func (l *sessionLease) takeNumber() uint64 {
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

// putBack lets the number be used again. Its key must be gone, and every request about it
// answered: one that arrives late could create the next key with this number, or delete it.
func (l *sessionLease) putBack(number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.free = append(l.free, number)
}

// keepAlive sends signs of life until the lease is lost. If there is no answer to one, it sends
// another, which goes to another member, and still takes the answer to the first: it does not
// know whether the connection is dead, or the network slow.
func (l *sessionLease) keepAlive() {
	var sent time.Duration
	for due := lease.Now() + l.ttl/4; ; due = sent + l.ttl/4 {
		if sleep(l.Context(), due-lease.Now()) {
			sent = l.signsOfLife()
		}
		if l.Err() != nil {
			break
		}
	}
	if cause := context.Cause(l.Context()); cause != errLostByClose {
		l.session.engine.Log(slog.LevelWarn, "lost the lease", "session", cause)
	}
}

// signsOfLife sends signs of life until one is answered, and returns when that one was sent.
func (l *sessionLease) signsOfLife() (sent time.Duration) {
	ctx, cancel := context.WithCancel(l.Context())
	defer cancel()
	answers := make(chan time.Duration)
	for {
		l.session.start(func() { l.signOfLife(ctx, answers) })
		again := time.NewTimer(max(l.ttl/12, 200*time.Millisecond))
		select {
		case <-again.C:
			_ = l.Err()
		case sent := <-answers:
			again.Stop()
			return sent
		case <-ctx.Done():
			return 0
		}
	}
}

func (l *sessionLease) signOfLife(ctx context.Context, answers chan<- time.Duration) {
	sent := lease.Now()
	resp, err := l.session.client.KeepAliveOnce(ctx, l.id)
	switch {
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		l.Lose(errLeaseGone)
	case err == nil:
		l.Renew(sent, time.Duration(resp.TTL)*time.Second)
		select {
		case answers <- sent:
		case <-ctx.Done():
		}
	}
}
