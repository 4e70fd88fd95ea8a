package locktable

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A goroutine that comes while the descriptor of an idle entry is being closed does not wait
// for that, but where locks belong to the process: closing would drop the lock that it
// acquires. There it waits, and if it gives up, it is not told that somebody holds the lock.
func TestAcquireWhileIdleDescriptorIsClosed(t *testing.T) {
	for _, ownsLocks := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			k := newKernel(path)
			table := New(&proc{kernel: k, ownsLocks: ownsLocks}, time.Millisecond)
			release(t, acquire(t, table, Exclusive))
			resume := k.holdBack("close")
			time.Sleep(time.Second)
			ctx, cancel := context.WithCancel(t.Context())
			first := goAcquire(ctx, table, request(path), Exclusive)
			if first.done() == ownsLocks {
				t.Errorf("locks belong to the process: %v; the only user has the lock: %v", ownsLocks, first.done())
			}
			if ownsLocks {
				cancel()
				first.mustFail(t, context.Canceled)
				if errors.As(first.err, new(*WaitError)) {
					t.Errorf("error is %#v", first.err)
				}
				first = goAcquire(t.Context(), table, request(path), Exclusive)
			}
			resume()
			h := first.mustHold(t)
			// The lock is still there after the descriptor has been closed.
			synctest.Wait()
			other := New(&proc{kernel: k, pid: 1, ownsLocks: ownsLocks}, 0)
			if _, ok, err := tryAcquire(other, request(path), Exclusive); ok || err != nil {
				t.Errorf("another process tries: %v, %v", ok, err)
			}
			k.setIntercept(nil)
			release(t, h)
			cancel()
			mustBeEmpty(t, table)
			mustBeClean(t, k)
		})
	}
}

// What has waited for a goroutine that acquires a free lock, and for nobody who held it, was
// not kept out.
func TestGiveUpBehindLeaderOfFreeLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, 0)
		resume := k.holdBack("try")
		leader := goAcquire(t.Context(), table, request(path), Exclusive)
		ctx, cancel := context.WithCancel(t.Context())
		waiter := goAcquire(ctx, table, request(path), Exclusive)
		cancel()
		waiter.mustFail(t, context.Canceled)
		if errors.As(waiter.err, new(*WaitError)) {
			t.Errorf("error is %#v", waiter.err)
		}
		resume()
		release(t, leader.mustHold(t))
		mustBeEmpty(t, table)
	})
}

// What has waited for a turn of another goroutine was kept out, also if nobody holds the lock
// as it gives up.
func TestGiveUpAfterAnotherHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, 0)
		h := acquire(t, table, Exclusive)
		ctx, cancel := context.WithCancel(t.Context())
		waiter := goAcquire(ctx, table, request(path), Exclusive)
		time.Sleep(time.Second) // the slice is over
		resume := k.holdBack("unlock")
		go func() { _, _ = h.Release(path) }()
		time.Sleep(time.Second)
		cancel()
		waiter.mustFail(t, context.Canceled)
		if !errors.As(waiter.err, new(*WaitError)) {
			t.Errorf("error is %#v", waiter.err)
		}
		resume()
		synctest.Wait()
		mustBeEmpty(t, table)
	})
}
