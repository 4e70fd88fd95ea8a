package etcd

import (
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
	handle *handle
	lease  *lease
	key    string
	rev    int64 // at which the key was created: the token

	// unanswered means that a request to create the key had no answer. It can still arrive.
	unanswered bool

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
	h.watch = time.AfterFunc(watchAfter, func() { h.handle.session.start(h.watchKey) })
	if h.lost != nil {
		h.cancel(h.lost)
	}
	return &heldContext{h.ctx, h}
}

// watchKey ends the context if the key is deleted. Nothing of this package does so.
func (h *hold) watchKey() {
	s := h.handle.session
	for h.ctx.Err() == nil {
		s.waitDeleted(h.ctx, h.key, h.rev)
		var resp *clientv3.GetResponse
		err := s.call(h.ctx, func(ctx context.Context) (err error) {
			resp, err = s.client.Get(ctx, h.key, clientv3.WithKeysOnly())
			return err
		})
		if err == nil && len(resp.Kvs) == 0 {
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
	err := h.handle.session.call(ctx, func(ctx context.Context) (err error) {
		then, otherwise := []clientv3.Op{clientv3.OpDelete(h.key)}, []clientv3.Op{}
		if tries > 0 {
			otherwise = append(otherwise, putBarrier(h.handle.name, h.lease.id))
		}
		if tries > 0 || h.unanswered {
			then = append(then, putBarrier(h.handle.name, h.lease.id))
		}
		tries++
		resp, err = h.handle.session.client.Txn(ctx).If(h.isMine()).Then(then...).Else(otherwise...).Commit()
		return err
	})
	switch {
	case err == nil && (resp.Succeeded || tries > 1 && lost != errKeyGone):
		return nil
	case err == nil:
		return cmpOr(lost, errKeyGone)
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		return cmpOr(lost, errLeaseGone)
	}
	h.lease.cleanUp(h.handle.name, h.key, true)
	return cmpOr(lost, h.lease.err(), errNoDeletion)
}

// untilDeadline returns a context for a release. It is done when the lease is lost, but if it is lost
// already the time of one try is left to find out whether etcd has kept it.
func (h *hold) untilDeadline() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	grace := h.handle.session.firstTry()
	stop := context.AfterFunc(h.lease.ctx, func() { time.AfterFunc(grace, cancel) })
	return ctx, func() { stop(); cancel() }
}

func cmpOr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
