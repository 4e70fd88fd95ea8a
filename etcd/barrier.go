package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A request without an answer can arrive at any later time, as long as the network keeps it. To
// delete the key that it creates is not enough:
//
//	acquire                          etcd
//	create the key       ─┐
//	ctx is done           │
//	delete the key  ──────┼────────▶ nothing to delete
//	                      └────────▶ creates the key
//
// Nobody would delete it as long as the session lives, and nobody else would get the lock. So
// each request that creates a key does so only if the barrier of its lock and lease has not been
// written since the request was sent, and to give up such a request is to write the barrier. That
// also holds off the requests of other acquires of the session for this lock, which then try
// again. There is one barrier for each lock, whatever the number of requests, and it goes with
// the lease.
func barrierKey(name string, id clientv3.LeaseID) string {
	return fmt.Sprintf("%s/barrier/%016x", name, int64(id))
}

// putBarrier fails with rpctypes.ErrLeaseNotFound if etcd has ended the lease.
func putBarrier(name string, id clientv3.LeaseID) clientv3.Op {
	return clientv3.OpPut(barrierKey(name, id), "", clientv3.WithLease(id))
}

// barrier returns the revision at which the barrier of the lock was last written, as far as it is
// known here, or 0 if it was not.
func (l *sessionLease) barrier(name string) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.barriers[name]
}

func (l *sessionLease) setBarrier(name string, rev int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.barriers[name] = rev
}

// cleanUp deletes the key in the background, until etcd says that it is gone. If a request that
// creates it may still arrive, it writes the barrier, too.
//
// It does so even if the lease is lost here: etcd may have kept it, and after a restart keeps it
// for another TTL. But it never revokes the lease, which would take the time to stop from those
// that hold other locks.
func (p *place) cleanUp() {
	l, s := p.lease, p.session()
	ops := []clientv3.Op{clientv3.OpDelete(p.key)}
	if p.unanswered {
		ops = append(ops, putBarrier(p.name, l.id))
	}
	s.start(func() {
		// As long as the lease lives and the key cannot be deleted, others wait without end.
		// After some time it is better to lose the lease.
		giveUp := time.AfterFunc(3*l.ttl, func() { l.Lose(errNoCleanup) })
		defer giveUp.Stop()
		ctx, cancel := context.WithTimeout(s.ctx, 10*l.ttl)
		defer cancel()
		tries := 0
		var resp *clientv3.TxnResponse
		err := s.call(ctx, func(ctx context.Context) (err error) {
			tries++
			resp, err = s.client.Txn(ctx).Then(ops...).Commit()
			return err
		})
		switch {
		case err == nil && p.unanswered:
			l.setBarrier(p.name, resp.Header.Revision)
		case err == nil && tries == 1:
			l.putBack(p.number)
		case err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) && s.ctx.Err() == nil:
			l.Lose(errNoCleanup)
		}
	})
}
