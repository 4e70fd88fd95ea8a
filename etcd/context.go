package etcd

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"

	"github.com/go-fasteners/fasteners"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A heldContext is the context of a hold. Whenever it is asked whether it is done, it looks at the clock:
// a process that was stopped for longer than its lease must not go on before a timer has run.
type heldContext struct {
	context.Context
	hold *hold
}

func (c *heldContext) String() string { return fmt.Sprintf("%v.held", c.Context) }

func (c *heldContext) Done() <-chan struct{} {
	_ = c.Err()
	return c.Context.Done()
}

func (c *heldContext) Err() error {
	if c.Context.Err() == nil {
		_ = c.hold.lease.err() // ends it
	}
	return c.Context.Err()
}

type holdKey struct{}

func (c *heldContext) Value(key any) any {
	if key == (holdKey{}) {
		return c.hold
	}
	return c.Context.Value(key)
}

// Guard returns the condition that the lock is still held which ctx, or a context that it is derived
// from, is the context of; of several the innermost. A transaction with this condition, in the etcd that
// has the lock, happens while the lock is held or not at all, however late it arrives. The condition is
// false once the lock is released. Guard returns false if ctx is of no lock of this package.
func Guard(ctx context.Context) (held clientv3.Cmp, ok bool) {
	h, ok := ctx.Value(holdKey{}).(*hold)
	if !ok {
		return clientv3.Cmp{}, false
	}
	return h.isMine(), true
}

// Commit performs the operations in one transaction with the condition of [Guard]. If the lock is not
// held any more, nothing is written, and the error wraps [fasteners.ErrLost], or
// [fasteners.ErrNotAcquired] if it was released, or if ctx is of no lock of this package.
//
// With any other error it is not known whether they were performed, as always if an answer does not come.
// Commit does not try again, and waits for at most the TTL.
func Commit(ctx context.Context, ops ...clientv3.Op) (*clientv3.TxnResponse, error) {
	h, ok := ctx.Value(holdKey{}).(*hold)
	if !ok {
		return nil, &fs.PathError{Op: "commit", Path: "etcd", Err: fasteners.ErrNotAcquired}
	}
	ctx, cancel := context.WithTimeout(ctx, h.lease.ttl)
	defer cancel()
	resp, err := h.session().client.Txn(ctx).If(h.isMine()).Then(ops...).Commit()
	if err == nil && !resp.Succeeded {
		err = h.refused()
	}
	if err != nil {
		return nil, h.handle.pathError("commit", err)
	}
	return resp, nil
}

// refused returns why the key is not there any more.
func (h *hold) refused() error {
	h.lose(errKeyGone)
	h.mu.Lock()
	defer h.mu.Unlock()
	return fmt.Errorf("nothing was written: %w", cmp.Or(h.lost, fasteners.ErrNotAcquired))
}
