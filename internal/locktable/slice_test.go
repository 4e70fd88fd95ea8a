package locktable

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Handing the lock on within a time slice takes one system call, by which the holder makes sure
// that the path names the file.
func TestHandOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, 0)
		mustHandOn(t, k, table)
		mustBeEmpty(t, table)
	})
}

// mustHandOn checks that a writer which has the lock without a time slice hands it on to
// another, in one system call.
func mustHandOn(t *testing.T, k *kernel, table *Table) {
	t.Helper()
	h := acquire(t, table, Exclusive)
	waiter := goAcquire(t.Context(), table, request(path), Exclusive)
	handsOn(t, k, h, waiter)
	release(t, waiter.hold)
}

// handsOn checks that the release of h hands the lock on to waiter, in one system call.
func handsOn(t *testing.T, k *kernel, h Hold, waiter *acquisition) {
	t.Helper()
	var calls atomic.Int64
	k.count(&calls, "")
	release(t, h)
	synctest.Wait()
	k.setIntercept(nil)
	if n := calls.Load(); n != 1 || !waiter.done() {
		t.Errorf("%d system calls; the next writer holds the lock: %v", n, waiter.done())
	}
	waiter.mustHold(t)
}

// Within a time slice a writer downgrades the lock for readers that are next in the queue.
// After it, the writer unlocks the file, so that other processes can lock it.
func TestHandOnToReaders(t *testing.T) {
	for _, test := range []struct {
		name                string
		held                time.Duration
		downgrades, unlocks int64
	}{
		{"in the slice", 0, 1, 0},
		{"after the slice", time.Second, 0, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newKernel(path)
				table := New(&proc{kernel: k}, 0)
				h := acquire(t, table, Exclusive)
				a := goAcquire(t.Context(), table, request(path), Shared)
				b := goAcquire(t.Context(), table, request(path), Shared)
				time.Sleep(test.held)
				var downgrades, unlocks atomic.Int64
				k.setIntercept(func(c *call) {
					switch c.name {
					case "downgrade":
						downgrades.Add(1)
					case "unlock":
						unlocks.Add(1)
					}
					c.perform()
				})
				release(t, h)
				holds := []Hold{a.mustHold(t), b.mustHold(t)}
				if d, u := downgrades.Load(), unlocks.Load(); d != test.downgrades || u != test.unlocks {
					t.Errorf("%d downgrades and %d unlocks, want %d and %d", d, u, test.downgrades, test.unlocks)
				}
				release(t, holds...)
				mustBeEmpty(t, table)
			})
		})
	}
}

// A time slice does not outlast the leadership that has to wait for another process: a writer
// that acquires the lock afterwards has a slice of its own.
func TestSliceBeginsAfterWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, 0)
		reader := acquire(t, table, Shared) // which has a slice
		other := acquire(t, New(&proc{kernel: k, pid: 1}, 0), Shared)
		first := goAcquire(t.Context(), table, request(path), Exclusive)
		second := goAcquire(t.Context(), table, request(path), Exclusive)
		release(t, reader)
		time.Sleep(time.Second) // the first writer waits for the other process
		release(t, other)
		handsOn(t, k, first.mustHold(t), second)
		release(t, second.hold)
		mustBeEmpty(t, table)
	})
}

// An entry that becomes idle because all waiters have given up keeps no time slice, and owes no
// yield.
func TestNoSliceWhileIdle(t *testing.T) {
	for _, test := range []struct {
		name string
		mode Mode          // of the holder
		held time.Duration // how long
	}{
		{"slice not over", Shared, 0},
		{"slice over", Exclusive, time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newKernel(path)
				table := New(&proc{kernel: k}, 24*time.Hour) // the entry stays in the table
				h := acquire(t, table, test.mode)
				ctx, cancel := newLateContext(t)
				waiter := goAcquire(ctx, table, request(path), Exclusive)
				time.Sleep(test.held)
				cancel()
				release(t, h) // the waiter leads, and gives up
				waiter.mustFail(t, context.Canceled)
				time.Sleep(time.Hour)
				start := time.Now()
				mustHandOn(t, k, table)
				if d := time.Since(start); d > 0 {
					t.Errorf("it took %v", d)
				}
			})
		})
	}
}

// A process unlocks the file at the end of each time slice, and hands the lock on before that.
func TestSlices(t *testing.T) {
	const hold = 100 * time.Microsecond
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, 0)
		var unlocks atomic.Int64
		k.count(&unlocks, "unlock")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		holds := loop(t, ctx, table, 3, hold)
		const want = int64(sliceLength / hold)
		if n := holds / unlocks.Load(); n < want-2 || n > want+2 {
			t.Errorf("%d holds for each unlock, want %d", n, want)
		}
	})
}

// loop has n goroutines acquire the lock, hold it for a while, and release it, until ctx is
// done. It returns how often they have held it.
func loop(t *testing.T, ctx context.Context, table *Table, n int, hold time.Duration) int64 {
	var loops sync.WaitGroup
	var holds atomic.Int64
	for range n {
		loops.Go(func() {
			for {
				h, err := table.Acquire(ctx, request(path), Exclusive, false)
				if err != nil {
					return
				}
				holds.Add(1)
				time.Sleep(hold)
				if _, err := h.Release(path); err != nil {
					t.Error(err)
				}
			}
		})
	}
	loops.Wait()
	return holds.Load()
}

// A process does not wait for longer than a slice beside a busy one, also if it is not always
// ready to run: schedulers, and the hosts of virtual machines, can keep it from running for
// some milliseconds.
func TestDelayedProcessBesideBusyOne(t *testing.T) {
	const hold = 100 * time.Microsecond
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		busy, other := New(&proc{kernel: k}, 0), New(&proc{kernel: k, pid: 1}, 0)
		ctx, cancel := context.WithCancel(t.Context())
		var loops sync.WaitGroup
		loops.Go(func() { loop(t, ctx, busy, 3, hold) })
		for delay := time.Duration(0); delay < 15*time.Millisecond; delay += 700 * time.Microsecond {
			time.Sleep(delay)
			start := time.Now()
			h, err := other.Acquire(ctx, request(path), Exclusive, false)
			must(t, err)
			if d := time.Since(start); d > sliceLength+yieldTime+hold {
				t.Errorf("after a delay of %v it waits for %v", delay, d)
			}
			time.Sleep(sliceLength) // the busy process notices it during this hold
			release(t, h)
		}
		cancel()
		loops.Wait()
	})
}

// A context that ends while the leader yields ends the wait before the file is locked again.
func TestCancelDuringYield(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, 0)
		h := acquire(t, table, Exclusive)
		ctx, cancel := context.WithCancel(t.Context())
		waiter := goAcquire(ctx, table, request(path), Exclusive)
		time.Sleep(time.Second) // the slice is over
		var tries atomic.Int64
		k.count(&tries, "try")
		release(t, h)
		synctest.Wait() // the waiter leads, and yields
		cancel()
		waiter.mustFail(t, context.Canceled)
		if n := tries.Load(); n > 0 {
			t.Errorf("the canceled leader locked the file: %d tries", n)
		}
		mustBeEmpty(t, table)
	})
}

// A try that leads does not yield, which would take time.
func TestTryDoesNotYield(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, 0)
		h := acquire(t, table, Exclusive)
		ctx, cancel := newLateContext(t)
		waiter := goAcquire(ctx, table, request(path), Exclusive)
		time.Sleep(time.Second) // the slice is over
		start := time.Now()
		resume := k.holdBack("unlock")
		go func() { _, _ = h.Release(path) }()
		synctest.Wait()
		try := goTry(t, table, Exclusive)
		cancel()
		resume() // the waiter leads, and gives up; the try leads
		waiter.mustFail(t, context.Canceled)
		if !receive(t, try) {
			t.Error("the try failed, though the lock is free")
		}
		if d := time.Since(start); d > 0 {
			t.Errorf("it took %v", d)
		}
		mustBeEmpty(t, table)
	})
}
