package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A request without an answer can arrive at any later time, as long as the network keeps it. To delete
// the key that it creates is not enough:
//
//	acquire                          etcd
//	create the key       ─┐
//	ctx is done           │
//	delete the key  ──────┼────────▶ nothing to delete
//	                      └────────▶ creates the key
//
// Nobody would delete it as long as the session lives, and nobody else would get the lock. So each
// request that creates a key does so only if the barrier of its lock and lease has not been written since
// the request was sent, and to give up such a request is to write the barrier. That also holds off the
// requests of other acquires of the session for this lock, which then try again. There is one barrier for
// each lock, whatever the number of requests, and it goes with the lease.
func barrierKey(name string, id clientv3.LeaseID) string {
	return fmt.Sprintf("%s/barrier/%016x", name, int64(id))
}

// putBarrier fails with rpctypes.ErrLeaseNotFound if etcd has ended the lease.
func putBarrier(name string, id clientv3.LeaseID) clientv3.Op {
	return clientv3.OpPut(barrierKey(name, id), "", clientv3.WithLease(id))
}

// barrier returns the revision at which the barrier of the lock was last written, as far as it is known
// here, or 0 if it was not.
func (l *lease) barrier(name string) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.barriers[name]
}

func (l *lease) setBarrier(name string, rev int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.barriers[name] = rev
}

// cleanUp deletes a key in the background, until etcd says that it is gone. If a request that creates it
// may still arrive, it writes the barrier, too.
//
// It does so even if the lease is lost here: etcd may have kept it, and after a restart keeps it for
// another TTL. But it never revokes the lease, which would take the time to stop from those that hold
// other locks.
func (l *lease) cleanUp(name, key string, unanswered bool) {
	ops := []clientv3.Op{clientv3.OpDelete(key)}
	if unanswered {
		ops = append(ops, putBarrier(name, l.id))
	}
	l.session.start(func() {
		// As long as the lease lives and the key cannot be deleted, others wait in vain. At some time it
		// is better to lose the lease.
		giveUp := time.AfterFunc(3*l.ttl, func() { l.end(errNoCleanup) })
		defer giveUp.Stop()
		ctx, cancel := context.WithTimeout(l.session.ctx, 10*l.ttl)
		defer cancel()
		var resp *clientv3.TxnResponse
		err := l.session.call(ctx, func(ctx context.Context) (err error) {
			resp, err = l.session.client.Txn(ctx).Then(ops...).Commit()
			return err
		})
		switch {
		case err == nil && unanswered:
			l.setBarrier(name, resp.Header.Revision)
		case err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) && l.session.ctx.Err() == nil:
			l.end(errNoCleanup)
		}
	})
}
