package etcd

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/go-fasteners/fasteners"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A hold is a lock that is held.
type hold struct {
	*place // with a key that was created at rev: the token

	mu    sync.Mutex
	lost  error // or nil
	ended bool

	// These are nil if the lock was acquired without a context.
	ctx    context.Context
	cancel context.CancelCauseFunc
	watch  *time.Timer // starts the watch on the key
}

// watchAfter is how long a lock is held before its key is watched. Most are held for less time, and a
// watch costs about as much as a tenth of an acquire.
const watchAfter = 100 * time.Millisecond

// begin makes the context of the hold.
func (h *hold) begin(parent context.Context) *heldContext {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ctx, h.cancel = context.WithCancelCause(fasteners.ContextWithToken(parent, h.rev))
	h.watch = time.AfterFunc(watchAfter, func() { h.session().start(h.watchKey) })
	if h.lost != nil {
		h.cancel(h.lost)
	}
	return &heldContext{h.ctx, h}
}

// watchKey ends the context if the key is deleted. Nothing of this package does so.
func (h *hold) watchKey() {
	s := h.session()
	for h.ctx.Err() == nil {
		s.waitDeleted(h.ctx, predecessor{key: h.key, rev: h.rev, seen: h.rev})
		if rev, err := s.created(h.ctx, h.key); err == nil && rev != h.rev {
			h.lose(errKeyGone)
		}
		sleep(h.ctx, minPause)
	}
}

// lose ends the context, unless it is ended, since somebody else may acquire the lock.
func (h *hold) lose(cause error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lost != nil || h.ended {
		return
	}
	h.lost = cause
	if h.cancel != nil {
		h.cancel(cause)
	}
}

// end ends the context, before the lock is released, and returns why it was lost before.
func (h *hold) end() error {
	h.lease.remove(h)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	if h.cancel != nil {
		h.cancel(nil)
		h.watch.Stop()
	}
	return h.lost
}

// isLost reports whether the lock is lost as far as is known.
func (h *hold) isLost() bool {
	err := h.lease.err()
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.lost != nil || err != nil
}

// isMine is the condition that the lock has been held all the time.
func (h *hold) isMine() clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(h.key), "=", h.rev)
}

// release deletes the key. It returns nil only if the key was there until then: as long as it is, nobody
// else can have the lock, whatever was feared.
//
// If there is no answer to the first try, it can have succeeded, and then the next one finds no key.
// Later tries therefore write the barrier, which etcd refuses if it has ended the lease. If it has not,
// it has not deleted the key either, so the first try did.
func (h *hold) release() error {
	lost := h.end()
	ctx, cancel := h.untilDeadline()
	defer cancel()
	var resp *clientv3.TxnResponse
	tries := 0
	err := h.session().call(ctx, func(ctx context.Context) (err error) {
		then, otherwise := []clientv3.Op{clientv3.OpDelete(h.key)}, []clientv3.Op{}
		if tries > 0 {
			otherwise = append(otherwise, putBarrier(h.handle.name, h.lease.id))
		}
		if tries > 0 || h.unanswered {
			then = append(then, putBarrier(h.handle.name, h.lease.id))
		}
		tries++
		resp, err = h.session().client.Txn(ctx).If(h.isMine()).Then(then...).Else(otherwise...).Commit()
		return err
	})
	switch {
	case err == nil && (resp.Succeeded || tries > 1 && lost != errKeyGone):
		if tries == 1 && !h.unanswered {
			h.lease.putBack(h.number)
		}
		return nil
	case err == nil:
		return cmp.Or(lost, errKeyGone)
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		return cmp.Or(lost, errLeaseGone)
	}
	h.unanswered = true
	h.cleanUp()
	return cmp.Or(lost, h.lease.err(), errNoDeletion)
}

// untilDeadline returns a context for a release. It is done when the lease is lost, but if it is lost
// already the time of one try is left to find out whether etcd has kept it.
func (h *hold) untilDeadline() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	grace := h.session().firstTry()
	stop := context.AfterFunc(h.lease.ctx, func() { time.AfterFunc(grace, cancel) })
	return ctx, func() { stop(); cancel() }
}
