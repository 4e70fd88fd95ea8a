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

// A wait in the kernel that is granted as its context ends is acquired: to give it back could
// drop what others hold through the same open file description.
func TestGrantMeetsCancellation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		other := heldByAnother(t, k)
		table := New(&proc{kernel: k}, 0)
		ctx, cancel := newLateContext(t)
		waiter := goAcquire(ctx, table, request(path), Exclusive)
		cancel()
		release(t, other)
		release(t, waiter.mustHold(t))
		mustBeEmpty(t, table)
	})
}

// lateList is a System that lists a reader that waits in the kernel, and calls during before it
// returns.
type lateList struct {
	*proc
	during func()
}

func (l *lateList) Holders(id ID, f File) ([]Holder, error) {
	l.during()
	holders, err := l.proc.Holders(id, f)
	return append(holders, Holder{Mode: Shared, Waiting: true}), err
}

// A reader of this process that was listed as one that waits, and has left the kernel since, is
// not told as one of another process.
func TestOwnReaderLeavesTheKernel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		other := heldByAnother(t, k)
		system := &lateList{proc: &proc{kernel: k}}
		table := New(system, 0)
		ctx, cancel := context.WithCancel(t.Context())
		reader := goAcquire(ctx, table, request(path), Shared)
		writer := goAcquire(t.Context(), table, request(path), Exclusive)
		system.during = func() {
			cancel()
			synctest.Wait()
		}
		_, holders, err := table.Holders(t.Context(), path, true)
		must(t, err)
		for _, h := range holders {
			if h.Waiting && h.PID != pid {
				t.Errorf("%+v waits", h)
			}
		}
		reader.mustFail(t, context.Canceled)
		release(t, other)
		release(t, writer.mustHold(t))
		mustBeEmpty(t, table)
	})
}
