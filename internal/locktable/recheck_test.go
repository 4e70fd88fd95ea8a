package locktable

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// If the path of a waiter comes to name another file, or none, while the holder of the old file
// goes on, the waiter starts over before long, however rarely it polls: as the leader and
// behind it, with any context, and also if it arrives after others have waited for long.
func TestRecheckFindsReplacedFile(t *testing.T) {
	for _, ownsLocks := range []bool{false, true} {
		for _, heldBy := range []string{"same process", "other process"} {
			for _, mode := range []Mode{Shared, Exclusive} {
				t.Run(fmt.Sprintf("ownsLocks=%v/%s/%v", ownsLocks, heldBy, mode), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						k := newKernel(path)
						table := New(&proc{kernel: k, ownsLocks: ownsLocks}, 0)
						holder := table
						if heldBy == "other process" {
							holder = New(&proc{kernel: k, pid: 1, ownsLocks: ownsLocks}, 0)
						}
						testRecheckFindsReplacedFile(t, k, table, acquire(t, holder, Exclusive), mode)
					})
				})
			}
		}
	}
}

func testRecheckFindsReplacedFile(t *testing.T, k *kernel, table *Table, old Hold, mode Mode) {
	cancelable, cancel := context.WithCancel(t.Context())
	defer cancel()
	var waiters []<-chan error
	wait := func(ctx context.Context, r *Request) {
		waiters = append(waiters, goLock(ctx, table, r, mode))
	}
	wait(context.Background(), patient())
	wait(cancelable, patient())
	time.Sleep(time.Hour)
	wait(context.Background(), request(path))
	wait(cancelable, patient())
	k.replace(path)
	time.Sleep(2 * maxRecheck)
	for i, w := range waiters {
		if len(w) == 0 {
			t.Errorf("waiter %d still waits for the old file", i)
		}
	}
	release(t, old)
	for _, w := range waiters {
		must(t, receive(t, w))
	}
	time.Sleep(time.Minute)
	mustBeEmpty(t, table)
}

// A leader that had to poll at first, and then waits in the kernel, is rechecked there, too.
func TestRecheckAfterPolling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		old := heldByAnother(t, k)
		table := New(&proc{kernel: k, fail: map[string]error{"wait": errors.ErrUnsupported}}, 0)
		waiter := goAcquire(t.Context(), table, patient(), Exclusive)
		time.Sleep(time.Hour)
		k.remove(path)
		time.Sleep(2 * maxRecheck)
		if !waiter.done() {
			t.Error("the leader waits for the removed file")
		}
		release(t, old)
		release(t, waiter.mustHold(t))
		mustBeEmpty(t, table)
	})
}

// The first recheck comes soon, also if the last wait was long ago, or its rechecks had become
// rare.
func TestRecheckBeginsSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, 0)
		h := acquire(t, table, Exclusive)
		for range 3 {
			ctx, cancel := context.WithCancel(t.Context())
			goAcquire(ctx, table, request(path), Exclusive)
			time.Sleep(time.Hour) // its rechecks are rare by now
			cancel()
			synctest.Wait()
			var looks atomic.Int64
			k.count(&looks, "same file")
			ctx, cancel = context.WithCancel(t.Context())
			goAcquire(ctx, table, request(path), Exclusive)
			before := looks.Load()
			time.Sleep(firstRecheck + 1)
			synctest.Wait()
			if looks.Load() <= before {
				t.Errorf("there was no recheck after %v", firstRecheck)
			}
			k.setIntercept(nil)
			cancel()
			synctest.Wait()
		}
		release(t, h)
	})
}

// Rechecks are rare while somebody waits, and there is none while nobody does.
func TestRechecksAreRare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		h := heldByAnother(t, k)
		table := New(&proc{kernel: k}, 0)
		var calls atomic.Int64
		k.count(&calls, "")
		var waiters []*acquisition
		for range 100 {
			waiters = append(waiters, goAcquire(t.Context(), table, request(path), Exclusive))
		}
		calls.Store(0)
		time.Sleep(time.Minute)
		if n := calls.Load(); n < 60 || n > 3*80 { // each looks at the path, and twice at who holds the lock
			t.Errorf("%d system calls in a minute", n)
		}
		release(t, h)
		for _, w := range waiters {
			release(t, w.mustHold(t))
			synctest.Wait()
		}
		calls.Store(0)
		time.Sleep(time.Hour)
		if n := calls.Load(); n > 0 {
			t.Errorf("%d system calls while nobody waits", n)
		}
		mustBeEmpty(t, table)
	})
}

// A writer that waits in the kernel locks pending when readers hold the lock, where a writer
// held it when the wait began. With ReaderPreference it does not.
func TestRecheckLocksPending(t *testing.T) {
	for _, readerPreference := range []bool{false, true} {
		t.Run(fmt.Sprintf("ReaderPreference=%v", readerPreference), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newKernel(path)
				h := heldByAnother(t, k)
				table := New(&proc{kernel: k}, 0)
				r := request(path)
				r.ReaderPreference = readerPreference
				waiter := goAcquire(t.Context(), table, r, Exclusive)
				time.Sleep(time.Hour)
				if k.paths[path].pending != nil {
					t.Fatal("pending is locked while a writer holds the lock")
				}
				must(t, h.Downgrade())
				time.Sleep(maxRecheck + 1)
				synctest.Wait()
				if locked := k.paths[path].pending != nil; locked == readerPreference {
					t.Errorf("while readers hold the lock, pending is locked: %v", locked)
				}
				release(t, h)
				release(t, waiter.mustHold(t))
				mustBeEmpty(t, table)
			})
		})
	}
}

// If a wait ends while a check locks pending, the leader awaits the check before it unlocks the
// file: otherwise pending would stay locked.
func TestCancelDuringCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		h := heldByAnother(t, k)
		table := New(&proc{kernel: k}, time.Hour)
		ctx, cancel := context.WithCancel(t.Context())
		leader := goAcquire(ctx, table, request(path), Exclusive)
		must(t, h.Downgrade())
		resume := k.holdBack("lock pending")
		time.Sleep(maxRecheck) // a recheck is about to lock pending
		cancel()
		synctest.Wait()
		resume()
		synctest.Wait()
		leader.mustFail(t, context.Canceled)
		if k.paths[path].pending != nil {
			t.Error("pending is locked")
		}
		k.setIntercept(nil)
		release(t, h)
		time.Sleep(2 * time.Hour)
		mustBeEmpty(t, table)
	})
}

// A recheck that begins while another one is running leaves the work to that one, and later
// rechecks run.
func TestRechecksDoNotOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		h := heldByAnother(t, k)
		table := New(&proc{kernel: k}, 0)
		waiter := goLock(t.Context(), table, request(path), Exclusive)
		table.mu.Lock()
		e := table.entries[k.paths[path].id]
		table.mu.Unlock()
		resume := k.holdBack("lock pending")
		for range 3 {
			go e.recheckNow()
			synctest.Wait()
		}
		resume()
		synctest.Wait()
		k.remove(path)
		must(t, receive(t, waiter)) // with the lock on a new file
		release(t, h)
		mustBeEmpty(t, table)
	})
}

// A recheck that cannot tell whether the path names the file leaves the waiter in the queue.
func TestRecheckIgnoresErrorOfPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		p := &proc{kernel: k, fail: map[string]error{}}
		table := New(p, 0)
		h := acquire(t, table, Exclusive)
		waiter := goAcquire(t.Context(), table, request(path), Exclusive)
		p.failNext("same file", errors.New("it fails"))
		var looks atomic.Int64
		k.count(&looks, "identify")
		time.Sleep(2 * maxRecheck)
		if n := p.failures(); n > 0 || looks.Load() > 0 {
			t.Errorf("%d errors not used; the waiter has started over %d times", n, looks.Load())
		}
		release(t, h)
		release(t, waiter.mustHold(t))
		mustBeEmpty(t, table)
	})
}

// While the leader polls, a recheck does not use the file: the leader may be using it.
func TestRecheckDuringPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		other := acquire(t, New(&proc{kernel: k, pid: 1, ownsLocks: true}, 0), Shared)
		table := New(&proc{kernel: k, ownsLocks: true}, 0)
		waiter := goAcquire(t.Context(), table, request(path), Exclusive)
		table.mu.Lock()
		e := table.entries[k.paths[path].id]
		table.mu.Unlock()
		resume := k.holdBack("try")
		time.Sleep(time.Millisecond) // the leader is in TryLock
		e.recheckNow()
		resume()
		release(t, other)
		release(t, waiter.mustHold(t))
		mustBeEmpty(t, table)
		mustBeClean(t, k)
	})
}

// Acquire returns the error that a recheck meets.
func TestRecheckFails(t *testing.T) {
	errFail := errors.New("it fails")
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		h := heldByAnother(t, k)
		p := &proc{kernel: k, fail: map[string]error{}}
		table := New(p, 0)
		waiter := goAcquire(t.Context(), table, request(path), Exclusive)
		k.mu.Lock()
		p.fail["lock pending"] = errFail
		k.mu.Unlock()
		waiter.mustFail(t, errFail)
		release(t, h)
		mustBeEmpty(t, table)
	})
}
