package itest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/etcd"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestDeletedKey deletes the key of a holder, right after it was created, and when it is watched.
func TestDeletedKey(t *testing.T) {
	t.Parallel()
	c := newClient(t, embedded(t))
	l := etcd.NewLock(newSession(t, c), "deleted")
	for _, wait := range []time.Duration{0, 300 * time.Millisecond} {
		held, release, err := l.Hold(bg)
		must(t, err)
		time.Sleep(wait)
		_, err = c.Delete(bg, "deleted/", clientv3.WithPrefix())
		must(t, err)
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
		"key":   func(key string, _ int64) error { _, err := c.Delete(bg, key); return err },
		"lease": func(_ string, lease int64) error { _, err := c.Revoke(bg, clientv3.LeaseID(lease)); return err },
	} {
		t.Run(name, func(t *testing.T) {
			must(t, holder.Acquire(bg))
			waiter := etcd.NewLock(newSession(t, newClient(t, addr)), "place")
			acquired := inBackground(func() error { return waiter.Acquire(bg) })
			awaitKeys(t, c, "place", 2)
			resp, err := c.Get(bg, "place/q/", clientv3.WithLastCreate()...)
			must(t, err)
			must(t, lose(string(resp.Kvs[0].Key), resp.Kvs[0].Lease))
			third := etcd.NewLock(newSession(t, c), "place")
			thirdAcquired := inBackground(func() error { return third.Acquire(bg) })
			blocks(t, "two holders", acquired)
			blocks(t, "two holders", thirdAcquired)
			must(t, holder.Release())
			for range 2 { // in whatever order
				select {
				case err := <-acquired:
					must(t, err)
					blocks(t, "two holders", thirdAcquired)
					must(t, waiter.Release())
				case err := <-thirdAcquired:
					must(t, err)
					blocks(t, "two holders", acquired)
					must(t, third.Release())
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
	held, release, err := l.Hold(bg)
	must(t, err)
	waiter := inBackground(func() error { return l.Acquire(bg) })
	awaitKeys(t, c, "close", 2)
	next := inBackground(func() error {
		err := other.Acquire(bg)
		if held.Err() == nil {
			t.Error("the next one has the lock, and the context is not done")
		}
		return err
	})
	awaitKeys(t, c, "close", 3)
	must(t, s.Close(bg))
	if cause := context.Cause(held); !errors.Is(cause, fasteners.ErrLost) || !errors.Is(cause, etcd.ErrClosed) {
		t.Error(cause)
	}
	if err := <-waiter; !errors.Is(err, etcd.ErrClosed) {
		t.Error(err)
	}
	must(t, <-next)
	if err := release(); !errors.Is(err, fasteners.ErrLost) {
		t.Error(err)
	}
	must(t, other.Release())
	must(t, s.Close(bg))
	if keys := keysOf(t, c, "close"); len(keys) > 0 {
		t.Errorf("left: %q", keys)
	}
}

// TestLostAndAcquiredAgain has two holds through one value, of which the first is lost.
func TestLostAndAcquiredAgain(t *testing.T) {
	t.Parallel()
	c := newClient(t, embedded(t))
	l := etcd.NewLock(newSession(t, c), "again")
	_, release, err := l.Hold(bg)
	must(t, err)
	revokeHolders(t, c, "again")
	held, releaseSecond, err := l.Hold(bg)
	must(t, err)
	if err := release(); !errors.Is(err, fasteners.ErrLost) {
		t.Error(err)
	}
	if held.Err() != nil {
		t.Error(context.Cause(held))
	}
	must(t, releaseSecond())
	if err := releaseSecond(); !errors.Is(err, fasteners.ErrNotAcquired) {
		t.Error(err)
	}
}
