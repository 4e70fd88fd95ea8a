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

// The goroutines of a process acquire the lock in order of arrival, and consecutive readers
// together, whether a goroutine of the same process or another process holds the lock at first.
func TestQueueOrder(t *testing.T) {
	for _, heldBy := range []string{"same process", "other process"} {
		t.Run(heldBy, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newKernel(path)
				table := New(&proc{kernel: k}, time.Millisecond)
				holder := table
				if heldBy == "other process" {
					holder = New(&proc{kernel: k, pid: 1}, time.Millisecond)
				}
				first := acquire(t, holder, Exclusive)
				var waiters []*acquisition
				for _, mode := range []Mode{Exclusive, Shared, Shared, Exclusive, Shared} {
					waiters = append(waiters, goAcquire(t.Context(), table, request(path), mode))
				}
				// served checks that the first n waiters have acquired the lock, and no others.
				served := func(n int) {
					t.Helper()
					time.Sleep(time.Second) // polling takes time
					synctest.Wait()
					for i, w := range waiters {
						if w.done() != (i < n) {
							t.Fatalf("waiter %d has acquired the lock: %v; want that of the first %d", i, w.done(), n)
						}
					}
				}
				served(0)
				release(t, first)
				served(1)
				release(t, waiters[0].mustHold(t))
				served(3)
				release(t, waiters[1].mustHold(t))
				served(3) // the other reader still holds the lock
				release(t, waiters[2].mustHold(t))
				served(4)
				release(t, waiters[3].mustHold(t))
				served(5)
				release(t, waiters[4].mustHold(t))
				mustBeEmpty(t, table)
			})
		})
	}
}

// If a context is done when Acquire is called, Acquire fails even if it could share the lock,
// and does not create the file.
func TestDoneContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	k := newKernel()
	table := New(&proc{kernel: k}, 0)
	if _, err := table.Acquire(ctx, request(path), Shared, false); err != context.Canceled || k.paths[path] != nil {
		t.Errorf("error is %v, file is %v", err, k.paths[path])
	}
	h := acquire(t, table, Shared)
	if _, err := table.Acquire(ctx, request(path), Shared, false); err != context.Canceled {
		t.Fatalf("error is %v", err)
	}
	release(t, h)
	mustBeEmpty(t, table)
}

// A waiter that is granted the lock, or the leadership, at the moment when its context is done
// passes it on.
func TestCancelDuringGrant(t *testing.T) {
	for _, test := range []struct {
		granted string
		slice   time.Duration
		mode    Mode
	}{
		{"shared lock", time.Second, Shared},
		{"exclusive lock", time.Second, Exclusive},
		{"leadership", 0, Exclusive},
	} {
		t.Run(test.granted, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newKernel(path)
				table := New(&proc{kernel: k}, 0)
				table.sliceLength = test.slice
				h := acquire(t, table, Exclusive)
				var reader *acquisition
				if test.mode == Shared {
					reader = goAcquire(t.Context(), table, request(path), Shared)
				}
				ctx, cancel := newLateContext(t)
				canceled := goAcquire(ctx, table, request(path), test.mode)
				cancel()
				release(t, h)
				canceled.mustFail(t, context.Canceled)
				if reader != nil {
					release(t, reader.mustHold(t))
				}
				time.Sleep(time.Hour)
				if n := table.size(); n > 0 {
					t.Errorf("%d entries are left in the table", n)
				}
				mustBeClean(t, k)
			})
		})
	}
}

// A wait that ends with its context returns the error of the context, and not its cause.
func TestContextCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		h := heldByAnother(t, k)
		table := New(&proc{kernel: k}, 0)
		ctx, cancel := context.WithCancelCause(t.Context())
		canceled := goAcquire(ctx, table, request(path), Exclusive)
		cancel(errors.New("a cause"))
		canceled.mustFail(t, context.Canceled)
		release(t, h)
		mustBeEmpty(t, table)
	})
}

// If the kernel cannot wait, the leader polls at the intervals of its request, and not in step
// with other processes.
func TestPollIntervals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		acquire(t, New(&proc{kernel: k, pid: 1, ownsLocks: true}, 0), Exclusive)
		table := New(&proc{kernel: k, ownsLocks: true}, 0)
		var tries []time.Time
		k.intercept = func(c *call) {
			if c.name == "try" {
				tries = append(tries, time.Now())
			}
			c.perform()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		r := &Request{Path: path, Options: &Options{Delay: 10 * time.Millisecond, MaxDelay: 100 * time.Millisecond}}
		if _, err := table.Acquire(ctx, r, Exclusive, false); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error is %v", err)
		}
		tries = tries[1:] // the second comes immediately after the first
		intervals := map[time.Duration]bool{}
		for i, longest := 1, time.Millisecond; i < len(tries); i++ {
			d := tries[i].Sub(tries[i-1])
			if d < longest/2 || d > longest {
				t.Fatalf("interval %d is %v, want %v to %v", i, d, longest/2, longest)
			}
			intervals[d] = true
			if longest < r.Delay {
				longest = min(2*longest, r.Delay)
			} else {
				longest = min(longest+r.Delay, r.MaxDelay)
			}
		}
		if len(intervals) < 100 {
			t.Errorf("%d tries at only %d different intervals", len(tries), len(intervals))
		}
	})
}

// If a system call of one goroutine fails, that goroutine gets the error, nothing is left
// behind, and the others acquire the lock.
func TestSystemCallFails(t *testing.T) {
	for _, name := range []string{"identify", "open", "try", "same file", "unlock", "close", "create"} {
		for _, waiters := range []int{0, 2} {
			t.Run(fmt.Sprintf("%s/%d waiters", name, waiters), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { testSystemCallFails(t, name, waiters) })
			})
		}
	}
}

func testSystemCallFails(t *testing.T, name string, waiters int) {
	errFail := errors.New("it fails")
	k := newKernel()
	if name != "create" {
		k.create(path)
	}
	table := New(&proc{kernel: k, fail: map[string]error{name: errFail}}, 0)
	results := make(chan error, 1+waiters)
	var held atomic.Int64
	finish := func(h Hold, err error) {
		if err == nil {
			held.Add(1)
			_, err = h.Release(path)
		}
		results <- err
	}
	h, err := table.Acquire(t.Context(), request(path), Exclusive, false)
	for range waiters {
		go func() { finish(table.Acquire(t.Context(), request(path), Exclusive, false)) }()
		synctest.Wait()
	}
	finish(h, err)
	time.Sleep(time.Second)
	synctest.Wait()
	var errs []error
	for range 1 + waiters {
		if err := <-results; err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) != 1 || !errors.Is(errs[0], errFail) {
		t.Errorf("errors are %v, want one", errs)
	}
	if n := held.Load(); n < int64(waiters) {
		t.Errorf("%d of %d waiters acquired the lock", n, waiters)
	}
	mustBeEmpty(t, table)
	if name != "close" && len(k.open) > 0 {
		t.Errorf("%d descriptors are open", len(k.open))
	}
	if name != "unlock" && len(k.faults) > 0 { // after a failed unlock only close can unlock the file
		t.Error(k.faults)
	}
}

// unstable is the System of a file system on which the identity of a file is another one each time.
type unstable struct {
	*proc
	calls atomic.Uint64
}

func (u *unstable) Identify(path string) (ID, error) {
	_, err := u.proc.Identify(path)
	return ID{2, u.calls.Add(1)}, err
}

func (u *unstable) SameFile(string, ID) (bool, error) { return false, nil }

func (u *unstable) Open(path string, mode Mode) (File, ID, error) {
	f, _, err := u.proc.Open(path, mode)
	return f, ID{2, u.calls.Add(1)}, err
}

// If the identity of the file never stays the same, or a system call always reports that the
// file is gone, Acquire fails.
func TestRetriesAreBounded(t *testing.T) {
	for _, call := range []string{"identify", "open", "try", "unstable"} {
		t.Run(call, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newKernel(path)
				p := &proc{kernel: k, failAlways: map[string]error{call: ErrRetry}}
				var s System = p
				if call == "unstable" {
					s = &unstable{proc: p}
				}
				table := New(s, 0)
				var retries atomic.Int64
				k.count(&retries, "identify")
				if _, ok, err := tryAcquire(table, request(path), Exclusive); ok || !errors.Is(err, ErrRetry) {
					t.Errorf("try: %v, %v", ok, err)
				}
				if _, err := table.Acquire(t.Context(), request(path), Shared, false); !errors.Is(err, ErrRetry) {
					t.Errorf("error is %v", err)
				}
				if n := retries.Load(); n > 2*(maxRetries+1) {
					t.Errorf("%d retries", n)
				}
				time.Sleep(time.Minute)
				mustBeEmpty(t, table)
				mustBeClean(t, k)
			})
		})
	}
}

// If a system call reports that the file is gone, Acquire starts over and does not fail.
func TestErrRetry(t *testing.T) {
	for _, call := range []string{"identify", "open", "try", "wait"} {
		t.Run(call, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newKernel(path)
				other := heldByAnother(t, k)
				table := New(&proc{kernel: k, fail: map[string]error{call: ErrRetry}}, 0)
				waiter := goAcquire(t.Context(), table, request(path), Exclusive)
				release(t, other)
				release(t, waiter.mustHold(t))
				mustBeEmpty(t, table)
			})
		})
	}
}

// After an error nobody knows whether the file is locked, so the descriptor is closed. After a
// try that was refused it stays open for the next acquire.
func TestDescriptorAfterFailure(t *testing.T) {
	errFail := errors.New("it fails")
	k := newKernel(path)
	p := &proc{kernel: k, fail: map[string]error{"try": errFail}}
	table := New(p, time.Hour)
	if _, err := table.Acquire(t.Context(), request(path), Exclusive, false); err != errFail {
		t.Errorf("error is %v", err)
	}
	if n := len(k.open); n != 0 {
		t.Errorf("after an error %d descriptors are open", n)
	}
	release(t, acquire(t, table, Exclusive))
	h := heldByAnother(t, k)
	if _, ok, err := tryAcquire(table, request(path), Exclusive); ok || err != nil {
		t.Errorf("try: %v, %v", ok, err)
	}
	if n := len(p.descriptors()); n != 1 {
		t.Errorf("after a refused try %d descriptors are open", n)
	}
	release(t, h)
}

// Acquire returns an error of LockPending, which a writer calls before it waits.
func TestLockPendingFails(t *testing.T) {
	errFail := errors.New("it fails")
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		h := acquire(t, New(&proc{kernel: k, pid: 1}, 0), Shared)
		table := New(&proc{kernel: k, fail: map[string]error{"lock pending": errFail}}, 0)
		goAcquire(t.Context(), table, request(path), Exclusive).mustFail(t, errFail)
		release(t, h)
		mustBeEmpty(t, table)
		mustBeClean(t, k)
	})
}

// watched is a System whose Watch reports releases.
type watched struct {
	*proc
	released chan struct{}
	stops    chan bool // receives what stop is told
}

func (w watched) Watch(ID, Mode) (<-chan struct{}, func(bool)) {
	return w.released, func(locked bool) { w.stops <- locked }
}

// releasing is a System on which another process releases the lock just before Watch begins to
// watch.
type releasing struct {
	*proc
	release func()
}

func (r releasing) Watch(ID, Mode) (<-chan struct{}, func(bool)) {
	r.release()
	return make(chan struct{}), func(bool) {}
}

// A leader tries again after it has called Watch, which reports no release that happened before
// that.
func TestReleaseBeforeWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		h := acquire(t, New(&proc{kernel: k, pid: 1, ownsLocks: true}, 0), Exclusive)
		table := New(releasing{&proc{kernel: k, ownsLocks: true}, func() { release(t, h) }}, 0)
		waiter := goAcquire(t.Context(), table, patient(), Exclusive)
		if !waiter.done() {
			t.Error("it waits, though the lock is free")
		}
		release(t, waiter.mustHold(t))
		mustBeEmpty(t, table)
	})
}

// A leader that polls tries again when Watch reports a release, and at the end tells Watch
// whether it has locked the file.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		h := acquire(t, New(&proc{kernel: k, pid: 1, ownsLocks: true}, 0), Exclusive)
		w := watched{&proc{kernel: k, ownsLocks: true}, make(chan struct{}), make(chan bool, 1)}
		table := New(w, 0)
		ctx, cancel := context.WithCancel(t.Context())
		canceled := goAcquire(ctx, table, patient(), Exclusive)
		cancel()
		canceled.mustFail(t, context.Canceled)
		if len(w.stops) != 1 || <-w.stops {
			t.Error("the canceled leader has not told Watch that it did not lock the file")
		}
		waiter := goAcquire(t.Context(), table, patient(), Exclusive)
		time.Sleep(time.Minute) // its next try is not soon
		release(t, h)
		start := time.Now()
		w.released <- struct{}{}
		release(t, waiter.mustHold(t))
		if d := time.Since(start); d > 0 {
			t.Errorf("it took %v", d)
		}
		if len(w.stops) != 1 || !<-w.stops {
			t.Error("the leader has not told Watch that it locked the file")
		}
		mustBeEmpty(t, table)
	})
}
