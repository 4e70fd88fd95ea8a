package locktable

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"
)

var errUnsure = errors.New("state is not known")

// unsure is a System on which TryLock locks the file and then fails.
type unsure struct{ *proc }

type unsureFile struct{ *descriptor }

func (u unsure) Open(path string, mode Mode) (File, ID, error) {
	f, id, err := u.proc.Open(path, mode)
	if err != nil {
		return nil, id, err
	}
	return unsureFile{f.(*descriptor)}, id, nil
}

func (f unsureFile) TryLock(mode Mode) (bool, error) {
	_, _ = f.descriptor.TryLock(mode)
	return false, errUnsure
}

// After an error nobody knows whether the file is locked, so it is unlocked before it is closed.
func TestUnlockAfterError(t *testing.T) {
	k := newKernel(path)
	table := New(unsure{&proc{kernel: k}}, 0)
	if _, err := table.Acquire(t.Context(), request(path), Exclusive, false); !errors.Is(err, errUnsure) {
		t.Errorf("error is %v", err)
	}
	mustBeClean(t, k)
}

// If unlock fails, only close can unlock the file, so the descriptor does not stay open.
func TestCloseAfterUnlockError(t *testing.T) {
	k := newKernel(path)
	p := &proc{kernel: k, fail: map[string]error{}}
	table := New(p, time.Hour)
	h := acquire(t, table, Exclusive)
	p.failNext("unlock", errUnsure)
	if _, err := h.Release(path); err != errUnsure {
		t.Errorf("error is %v", err)
	}
	if len(k.open) > 0 {
		t.Error("the descriptor is open")
	}
}

// Release returns an error of close, also if there is a second descriptor to close by then.
func TestCloseErrorWithSecondDescriptor(t *testing.T) {
	errFail := errors.New("it fails")
	k := newKernel(path)
	p := &proc{kernel: k, fail: map[string]error{}}
	table := New(p, 0)
	h := acquire(t, table, Exclusive)
	p.failNext("close", errFail)
	k.intercept = func(c *call) {
		if c.name == "close" && p.fail["close"] != nil {
			k.mu.Lock()
			f, id := p.descriptor(path, Exclusive)
			k.mu.Unlock()
			table.adopt(f, id) // as a goroutine does that wanted to open another file
		}
		c.perform()
	}
	if _, err := h.Release(path); !errors.Is(err, errFail) {
		t.Errorf("error is %v", err)
	}
}

// The descriptor of a free lock is used again, also if other processes have held the lock
// meanwhile. It is closed when this process has not used it for the idle timeout.
func TestIdleDescriptor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, time.Millisecond)
		once := func() *descriptor {
			t.Helper()
			h := acquire(t, table, Exclusive)
			d := k.open[0]
			other := goAcquire(t.Context(), New(&proc{kernel: k, pid: 1}, 0), request(path), Exclusive)
			release(t, h)
			release(t, other.mustHold(t))
			return d
		}
		first := once()
		for range 10 {
			time.Sleep(time.Millisecond / 2)
			if once() != first {
				t.Error("the descriptor was not used again")
			}
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if len(k.open) > 0 {
			t.Error("the descriptor of an unused lock is still open")
		}
		mustBeEmpty(t, table)
	})
}

// Without an idle timeout, too, the goroutines in the queue use the open descriptor.
func TestDescriptorStaysOpenForQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, 0)
		h := acquire(t, table, Exclusive)
		waiter := goAcquire(t.Context(), table, request(path), Exclusive)
		time.Sleep(time.Second) // the slice is over, so the lock is not handed on
		var opens atomic.Int64
		k.count(&opens, "open")
		release(t, h)
		release(t, waiter.mustHold(t))
		if n := opens.Load(); n > 0 {
			t.Errorf("the file was opened %d times more", n)
		}
		mustBeEmpty(t, table)
	})
}

// If a descriptor of the file permits only one mode, readers and writers replace each other's.
func TestDescriptorsOfOneMode(t *testing.T) {
	const path = "read-only"
	k := newKernel(path)
	table := New(&proc{kernel: k, ownsLocks: true}, time.Hour)
	for range 3 {
		for _, mode := range []Mode{Shared, Exclusive} {
			h, err := table.Acquire(t.Context(), request(path), mode, false)
			must(t, err)
			_, err = h.Release(path)
			must(t, err)
		}
	}
	if len(k.open) != 1 || len(k.faults) > 0 {
		t.Errorf("%d descriptors are open; %v", len(k.open), k.faults)
	}
}

// A lock that could not be downgraded is still exclusive, and is released as such.
func TestDowngradeFails(t *testing.T) {
	errFail := errors.New("it fails")
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k, fail: map[string]error{"downgrade": errFail}}, 0)
		h := acquire(t, table, Exclusive)
		if err := h.Downgrade(); err != errFail {
			t.Errorf("error is %v", err)
		}
		other := New(&proc{kernel: k, pid: 1}, 0)
		if _, ok, err := tryAcquire(other, request(path), Shared); ok || err != nil {
			t.Errorf("a reader's try: %v, %v", ok, err)
		}
		reader := goAcquire(t.Context(), table, request(path), Shared)
		if reader.done() {
			t.Error("a reader holds the lock together with a writer")
		}
		release(t, h)
		release(t, reader.mustHold(t))
		mustBeEmpty(t, table)
	})
}

// A reader for which the lock is being downgraded gives up meanwhile. The writer behind it does
// not become a holder of the shared lock:
//
//	last holder, a writer     reader       writer
//	                          queues       queues
//	release: downgrade …
//	                          gives up
//	… unlock
//	                                       leads
func TestCancelDuringDowngrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, 0)
		h := acquire(t, table, Exclusive)
		ctx, cancel := context.WithCancel(t.Context())
		reader := goAcquire(ctx, table, request(path), Shared)
		writer := goAcquire(t.Context(), table, request(path), Exclusive)
		resume := k.holdBack("downgrade")
		go func() { _, _ = h.Release(path) }()
		synctest.Wait()
		cancel()
		reader.mustFail(t, context.Canceled)
		resume()
		h = writer.mustHold(t)
		if _, ok, err := tryAcquire(New(&proc{kernel: k, pid: 1}, 0), request(path), Shared); ok || err != nil {
			t.Errorf("a reader of another process beside a writer: %v, %v", ok, err)
		}
		release(t, h)
		mustBeEmpty(t, table)
		mustBeClean(t, k)
	})
}

// The garbage collector collects an entry that nobody uses, and its timers, however rarely its
// waiters would have polled.
func TestEntryIsCollected(t *testing.T) {
	k := newKernel(path)
	table := New(&proc{kernel: k}, 0)
	table.firstRecheck = time.Hour
	h, err := table.Acquire(context.Background(), patient(), Exclusive, false)
	must(t, err)
	e := weak.Make(h.entry)
	done := make(chan error)
	go func() {
		h, err := table.Acquire(context.Background(), patient(), Exclusive, false)
		if err == nil {
			_, err = h.Release(path)
		}
		done <- err
	}()
	for { // until it queues
		table.mu.Lock()
		queues := h.entry.queue.head != nil
		table.mu.Unlock()
		if queues {
			break
		}
		runtime.Gosched()
	}
	release(t, h)
	must(t, <-done)
	h = Hold{}
	for e.Value() != nil {
		runtime.GC()
		time.Sleep(time.Millisecond) // so that the runtime forgets the timer, which it does in passing
	}
}
