package locktable

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// path is the path of the lock file in most tests.
const path = "lock"

// request returns a request that polls each millisecond where the kernel cannot wait.
func request(path string) *Request {
	return &Request{Path: path, Options: &Options{Delay: time.Millisecond, MaxDelay: time.Millisecond}}
}

// patient returns a request that polls so rarely that no test can depend on it.
func patient() *Request {
	return &Request{Path: path, Options: &Options{Delay: 24 * time.Hour, MaxDelay: 24 * time.Hour}}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// acquire acquires the lock on path, which must not fail.
func acquire(t *testing.T, table *Table, mode Mode) Hold {
	t.Helper()
	h, err := table.Acquire(t.Context(), request(path), mode, false)
	must(t, err)
	return h
}

// tryAcquire acquires the lock without waiting for a release, and reports whether it did.
func tryAcquire(table *Table, r *Request, mode Mode) (Hold, bool, error) {
	h, err := table.Acquire(context.Background(), r, mode, true)
	if err == ErrBusy {
		return Hold{}, false, nil
	}
	return h, err == nil, err
}

// release releases the lock on path, which must not fail.
func release(t *testing.T, holds ...Hold) {
	t.Helper()
	for _, h := range holds {
		_, err := h.Release(path)
		must(t, err)
	}
}

// receive receives from c, which must not take long. It is for bubbles: rechecks go on without
// end while somebody waits, so the runtime does not notice a deadlock.
func receive[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(10 * time.Minute):
		t.Fatal("it takes too long")
	}
	return v
}

// An acquisition is the result of Acquire in another goroutine.
type acquisition struct {
	returned chan struct{} // closed when Acquire has returned
	hold     Hold
	err      error
}

// goAcquire acquires the lock in another goroutine of a bubble. It returns when that goroutine
// has the lock, or is blocked.
func goAcquire(ctx context.Context, table *Table, r *Request, mode Mode) *acquisition {
	a := &acquisition{returned: make(chan struct{})}
	go func() {
		a.hold, a.err = table.Acquire(ctx, r, mode, false)
		close(a.returned)
	}()
	synctest.Wait()
	return a
}

// done reports whether Acquire has returned.
func (a *acquisition) done() bool {
	select {
	case <-a.returned:
		return true
	default:
		return false
	}
}

// mustHold waits until Acquire has returned, without an error, and returns the hold.
func (a *acquisition) mustHold(t *testing.T) Hold {
	t.Helper()
	receive(t, a.returned)
	must(t, a.err)
	return a.hold
}

// mustFail waits until Acquire has returned, with the error want.
func (a *acquisition) mustFail(t *testing.T, want error) {
	t.Helper()
	receive(t, a.returned)
	if !errors.Is(a.err, want) {
		t.Errorf("error is %v, want %v", a.err, want)
	}
}

// goLock acquires and releases the lock in another goroutine of a bubble, and returns when that is
// blocked or has done both. The channel receives the first error, or nil.
func goLock(ctx context.Context, table *Table, r *Request, mode Mode) <-chan error {
	done := make(chan error, 1)
	go func() {
		h, err := table.Acquire(ctx, r, mode, false)
		if err == nil {
			_, err = h.Release(r.Path)
		}
		done <- err
	}()
	synctest.Wait()
	return done
}

// goTry tries to acquire the lock in another goroutine of a bubble, and releases it if it has
// acquired it. It returns when that goroutine is blocked or has done so. The channel receives
// whether it acquired the lock.
func goTry(t *testing.T, table *Table, mode Mode) <-chan bool {
	acquired := make(chan bool, 1)
	go func() {
		h, ok, err := tryAcquire(table, request(path), mode)
		if err != nil {
			t.Errorf("try: %v", err)
		}
		if ok {
			if _, err := h.Release(path); err != nil {
				t.Error(err)
			}
		}
		acquired <- ok
	}()
	synctest.Wait()
	return acquired
}

// mustBeRefused checks that a try has returned without the lock, and not waited for a release.
func mustBeRefused(t *testing.T, try <-chan bool) {
	t.Helper()
	select {
	case ok := <-try:
		if ok {
			t.Error("the try acquired the lock")
		}
	default:
		t.Error("the try waits for a release")
	}
}

// heldByAnother acquires the lock exclusively as process 1.
func heldByAnother(t *testing.T, k *kernel) Hold {
	t.Helper()
	return acquire(t, New(&proc{kernel: k, pid: 1}, 0), Exclusive)
}

// lateContext is a context whose Err reports its end before Done does. A goroutine that wakes
// up for another reason as its context ends sees any context like that.
type lateContext struct {
	context.Context
	canceled chan struct{}
}

func newLateContext(t *testing.T) (ctx context.Context, cancel func()) {
	l := &lateContext{t.Context(), make(chan struct{})}
	return l, func() { close(l.canceled) }
}

func (l *lateContext) Done() <-chan struct{} { return make(chan struct{}) }

func (l *lateContext) Err() error {
	select {
	case <-l.canceled:
		return context.Canceled
	default:
		return nil
	}
}

// size is how much the table remembers: it is 0 when nothing is left behind. The caller holds
// Table.mu, or no other goroutine uses the table.
func (t *Table) size() int {
	return len(t.entries) + len(t.paths) + len(t.creating) + len(t.asking) + len(t.checking)
}

// mustBeEmpty waits until the table is empty, for longer than its idle timeout.
func mustBeEmpty(t *testing.T, table *Table) {
	t.Helper()
	for range 100_000 {
		table.mu.Lock()
		n := table.size()
		table.mu.Unlock()
		if n == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Error("entries are left in the table")
}

// mustBeClean checks that no descriptor is open, and that no table did anything wrong.
func mustBeClean(t *testing.T, k *kernel) {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.open) > 0 {
		t.Errorf("%d descriptors are open", len(k.open))
	}
	for _, f := range k.faults {
		t.Error(f)
	}
}
