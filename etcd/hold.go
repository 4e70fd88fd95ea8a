package etcd

import (
	"cmp"
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/go-fasteners/fasteners/lease"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A hold is a lock that is held.
type hold struct {
	lease.Hold
	*place // with a key that was created at rev: the token

	watch atomic.Pointer[time.Timer] // starts the watch on the key, if the hold has a context
}

// watchAfter is how long a lock is held before its key is watched. Most are held for less time,
// and a watch costs about as much as a tenth of an acquire.
const watchAfter = 100 * time.Millisecond

// watched returns what a Hold has returned, and makes the context end if the key is deleted. A
// release that comes before the timer is stored does not stop it, but then the context is done
// when it runs.
func watched(held context.Context, release func() error, err error) (context.Context, func() error, error) {
	if err != nil {
		return nil, nil, err
	}
	h, _ := lease.HoldOf[*hold](held)
	h.watch.Store(time.AfterFunc(watchAfter, func() {
		h.session().start(func() { h.watchKey(held) })
	}))
	return held, release, nil
}

// watchKey ends the context if the key is deleted. Nothing of this package does so.
func (h *hold) watchKey(held context.Context) {
	s := h.session()
	for held.Err() == nil {
		s.waitDeleted(held, predecessor{key: h.key, rev: h.rev, seen: h.rev})
		if rev, err := s.created(held, h.key); err == nil && rev != h.rev {
			h.Lose(errKeyGone)
		}
		sleep(held, minPause)
	}
}

// isMine is the condition that the lock has been held all the time.
func (h *hold) isMine() clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(h.key), "=", h.rev)
}

// Release deletes the key. It returns nil only if the key was there until then: as long as it is,
// nobody else can have the lock, whatever was feared.
//
// If there is no answer to the first try, it can have succeeded, and then the next one finds no
// key. Later tries therefore write the barrier, which etcd refuses if it has ended the lease. If
// it has not, it has not deleted the key either, so the first try did.
func (h *hold) Release() error {
	if t := h.watch.Load(); t != nil {
		t.Stop()
	}
	lost := h.Err()
	ctx, cancel := h.untilDeadline()
	defer cancel()
	var resp *clientv3.TxnResponse
	tries := 0
	err := h.session().call(ctx, func(ctx context.Context) (err error) {
		then, otherwise := []clientv3.Op{clientv3.OpDelete(h.key)}, []clientv3.Op{}
		if tries > 0 {
			otherwise = append(otherwise, putBarrier(h.name, h.lease.id))
		}
		if tries > 0 || h.unanswered {
			then = append(then, putBarrier(h.name, h.lease.id))
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
	return cmp.Or(lost, h.lease.Err(), errNoDeletion)
}

// untilDeadline returns a context for a release. It is done when the lease is lost, but if it is
// lost already the time of one try is left to find out whether etcd has kept it.
func (h *hold) untilDeadline() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	grace := h.session().firstTry()
	stop := context.AfterFunc(h.lease.Context(), func() { time.AfterFunc(grace, cancel) })
	return ctx, func() { stop(); cancel() }
}
