package etcd

import (
	"cmp"
	"context"
	"fmt"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/lease"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Guard returns the condition that the lock is still held which ctx, or a context that it is
// derived from, is the context of; of several the innermost. A transaction with this condition,
// in the etcd that has the lock, happens while the lock is held or not at all, however late it
// arrives. The condition is false once the lock is released. Guard returns false if ctx is of no
// lock of this package.
func Guard(ctx context.Context) (held clientv3.Cmp, ok bool) {
	h, ok := lease.HoldOf[*hold](ctx)
	if !ok {
		return clientv3.Cmp{}, false
	}
	return h.isMine(), true
}

// Commit performs the operations in one transaction with the condition of [Guard]. If the lock is
// not held any more, nothing is written, and the error wraps [fasteners.ErrLost], or
// [fasteners.ErrNotAcquired] if it was released, or if ctx is of no lock of this package.
//
// With any other error it is not known whether they were performed, as always if an answer does
// not come. Commit does not try again, and waits for at most the TTL.
func Commit(ctx context.Context, ops ...clientv3.Op) (*clientv3.TxnResponse, error) {
	h, ok := lease.HoldOf[*hold](ctx)
	if !ok {
		return nil, lease.PathError("commit", "etcd", fasteners.ErrNotAcquired)
	}
	ctx, cancel := context.WithTimeout(ctx, h.lease.ttl)
	defer cancel()
	resp, err := h.session().client.Txn(ctx).If(h.isMine()).Then(ops...).Commit()
	if err == nil && !resp.Succeeded {
		err = h.refused()
	}
	if err != nil {
		return nil, lease.PathError("commit", h.name, err)
	}
	return resp, nil
}

// refused returns why the key is not there any more.
func (h *hold) refused() error {
	h.Lose(errKeyGone)
	return fmt.Errorf("nothing was written: %w", cmp.Or(h.Err(), fasteners.ErrNotAcquired))
}
