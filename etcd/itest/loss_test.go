package itest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/etcd"
	"github.com/go-fasteners/fasteners/internal/enginetest/must"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestDeletedKey deletes the key of a holder, right after it was created, and when it is watched.
func TestDeletedKey(t *testing.T) {
	t.Parallel()
	c := newClient(t, embedded(t))
	l := etcd.NewLock(newSession(t, c), "deleted")
	for _, wait := range []time.Duration{0, 300 * time.Millisecond} {
		held, release, err := l.Hold(background)
		must.Succeed(t, err)
		time.Sleep(wait)
		_, err = c.Delete(background, "deleted/", clientv3.WithPrefix())
		must.Succeed(t, err)
		<-held.Done()
		if !errors.Is(context.Cause(held), fasteners.ErrLost) || l.Acquired() {
			t.Error(context.Cause(held), l.Acquired())
		}
		if err := release(); !errors.Is(err, fasteners.ErrLost) {
			t.Error(err)
		}
	}
}

// TestWaiterLosesPlace deletes the key or the lease of a waiter, which queues again.
func TestWaiterLosesPlace(t *testing.T) {
	t.Parallel()
	addr := embedded(t)
	c := newClient(t, addr)
	holder := etcd.NewLock(newSession(t, c), "place")
	for name, lose := range map[string]func(key string, lease int64) error{
		"key":   func(key string, _ int64) error { _, err := c.Delete(background, key); return err },
		"lease": func(_ string, lease int64) error { _, err := c.Revoke(background, clientv3.LeaseID(lease)); return err },
	} {
		t.Run(name, func(t *testing.T) {
			must.Succeed(t, holder.Acquire(background))
			waiter := etcd.NewLock(newSession(t, newClient(t, addr)), "place")
			acquired := must.Go(func() error { return waiter.Acquire(background) })
			awaitKeys(t, c, "place", 2)
			resp, err := c.Get(background, "place/q/", clientv3.WithLastCreate()...)
			must.Succeed(t, err)
			must.Succeed(t, lose(string(resp.Kvs[0].Key), resp.Kvs[0].Lease))
			third := etcd.NewLock(newSession(t, c), "place")
			thirdAcquired := must.Go(func() error { return third.Acquire(background) })
			must.Block(t, "two holders", acquired)
			must.Block(t, "two holders", thirdAcquired)
			must.Succeed(t, holder.Release())
			for range 2 { // in whatever order
				select {
				case err := <-acquired:
					must.Succeed(t, err)
					must.Block(t, "two holders", thirdAcquired)
					must.Succeed(t, waiter.Release())
				case err := <-thirdAcquired:
					must.Succeed(t, err)
					must.Block(t, "two holders", acquired)
					must.Succeed(t, third.Release())
				}
			}
		})
	}
}

// TestClose closes a session with a holder and a waiter.
func TestClose(t *testing.T) {
	t.Parallel()
	c := newClient(t, embedded(t))
	s := newSession(t, c)
	l, other := etcd.NewLock(s, "close"), etcd.NewLock(newSession(t, c), "close")
	held, release, err := l.Hold(background)
	must.Succeed(t, err)
	waiter := must.Go(func() error { return l.Acquire(background) })
	awaitKeys(t, c, "close", 2)
	next := must.Go(func() error {
		err := other.Acquire(background)
		if held.Err() == nil {
			t.Error("the next one has the lock, and the context is not done")
		}
		return err
	})
	awaitKeys(t, c, "close", 3)
	must.Succeed(t, s.Close(background))
	if cause := context.Cause(held); !errors.Is(cause, fasteners.ErrLost) || !errors.Is(cause, etcd.ErrClosed) {
		t.Error(cause)
	}
	if err := <-waiter; !errors.Is(err, etcd.ErrClosed) {
		t.Error(err)
	}
	must.Succeed(t, <-next)
	if err := release(); !errors.Is(err, fasteners.ErrLost) {
		t.Error(err)
	}
	must.Succeed(t, other.Release())
	must.Succeed(t, s.Close(background))
	if keys := keysOf(t, c, "close"); len(keys) > 0 {
		t.Errorf("left: %q", keys)
	}
}

// TestLostAndAcquiredAgain has two holds through one value, of which the first is lost.
func TestLostAndAcquiredAgain(t *testing.T) {
	t.Parallel()
	c := newClient(t, embedded(t))
	l := etcd.NewLock(newSession(t, c), "again")
	_, release, err := l.Hold(background)
	must.Succeed(t, err)
	revokeHolders(t, c, "again")
	held, releaseSecond, err := l.Hold(background)
	must.Succeed(t, err)
	if err := release(); !errors.Is(err, fasteners.ErrLost) {
		t.Error(err)
	}
	if held.Err() != nil {
		t.Error(context.Cause(held))
	}
	must.Succeed(t, releaseSecond())
	if err := releaseSecond(); !errors.Is(err, fasteners.ErrNotAcquired) {
		t.Error(err)
	}
}
