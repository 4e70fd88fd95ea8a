package lockertest

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
)

// A way is a method that acquires a lock.
type way struct {
	name   string
	rw     bool // of a ReaderWriterLocker
	shared bool
	held   bool // supplies a context for the hold

	acquire func(ctx context.Context, lock any) (*holding, error)
	release func(lock any) error // ends some hold of this mode
	with    func(ctx context.Context, lock any, fn func(context.Context) error) error
}

// A holding is what an acquire has acquired.
type holding struct {
	ctx     context.Context // or nil
	release func() error
}

var (
	acquire = way{
		name: "Acquire",
		acquire: func(ctx context.Context, lock any) (*holding, error) {
			l := lock.(fasteners.Locker)
			return withoutContext(l.Acquire(ctx), l.Release)
		},
		release: func(lock any) error { return lock.(fasteners.Locker).Release() },
		with:    withLock,
	}
	hold = way{
		name: "Hold", held: true,
		acquire: func(ctx context.Context, lock any) (*holding, error) {
			return withContext(lock.(fasteners.ContextLocker).Hold(ctx))
		},
		release: acquire.release,
		with:    withLock,
	}
	acquireRead = way{
		name: "AcquireReadLock", rw: true, shared: true,
		acquire: func(ctx context.Context, lock any) (*holding, error) {
			l := lock.(fasteners.ReaderWriterLocker)
			return withoutContext(l.AcquireReadLock(ctx), l.ReleaseReadLock)
		},
		release: func(lock any) error { return lock.(fasteners.ReaderWriterLocker).ReleaseReadLock() },
		with:    withReadLock,
	}
	holdRead = way{
		name: "HoldRead", rw: true, shared: true, held: true,
		acquire: func(ctx context.Context, lock any) (*holding, error) {
			return withContext(lock.(fasteners.ContextReaderWriterLocker).HoldRead(ctx))
		},
		release: acquireRead.release,
		with:    withReadLock,
	}
	acquireWrite = way{
		name: "AcquireWriteLock", rw: true,
		acquire: func(ctx context.Context, lock any) (*holding, error) {
			l := lock.(fasteners.ReaderWriterLocker)
			return withoutContext(l.AcquireWriteLock(ctx), l.ReleaseWriteLock)
		},
		release: func(lock any) error { return lock.(fasteners.ReaderWriterLocker).ReleaseWriteLock() },
		with:    withWriteLock,
	}
	holdWrite = way{
		name: "HoldWrite", rw: true, held: true,
		acquire: func(ctx context.Context, lock any) (*holding, error) {
			return withContext(lock.(fasteners.ContextReaderWriterLocker).HoldWrite(ctx))
		},
		release: acquireWrite.release,
		with:    withWriteLock,
	}
)

func withLock(ctx context.Context, lock any, fn func(context.Context) error) error {
	return fasteners.WithLock(ctx, lock.(fasteners.Locker), fn)
}

func withReadLock(ctx context.Context, lock any, fn func(context.Context) error) error {
	return fasteners.WithReadLock(ctx, lock.(fasteners.ReaderWriterLocker), fn)
}

func withWriteLock(ctx context.Context, lock any, fn func(context.Context) error) error {
	return fasteners.WithWriteLock(ctx, lock.(fasteners.ReaderWriterLocker), fn)
}

func withoutContext(err error, release func() error) (*holding, error) {
	return &holding{release: release}, err
}

func withContext(ctx context.Context, release func() error, err error) (*holding, error) {
	return &holding{ctx, release}, err
}

func isAny(way) bool         { return true }
func isShared(w way) bool    { return w.shared }
func isExclusive(w way) bool { return !w.shared }
func isHeld(w way) bool      { return w.held }
func isPlain(w way) bool     { return !w.held }

// exclusive returns the way of the same kind of lock that excludes w and itself.
func (w way) exclusive() way {
	switch {
	case !w.shared:
		return w
	case w.held:
		return holdWrite
	}
	return acquireWrite
}

// excludes reports whether two holds of one lock, acquired in these ways, exclude each other.
func (w way) excludes(o way) bool { return !w.shared || !o.shared }

// An access is a lock value and a way to acquire it.
type access struct {
	way
	lock any
}

// as returns the same lock value, with another way to acquire it.
func (a access) as(w way) access { return access{w, a.lock} }

// try returns the method that acquires the lock without waiting for other holders, or nil if
// there is none. Such a method may have a context, or not: then withContext is false.
func (a access) try() (try func(context.Context) (bool, error), withContext bool) {
	m := reflect.ValueOf(a.lock).MethodByName("Try" + a.name)
	if !m.IsValid() {
		return nil, false
	}
	switch method := m.Interface().(type) {
	case func(context.Context) (bool, error):
		return method, true
	case func() (bool, error):
		return func(context.Context) (bool, error) { return method() }, false
	}
	return nil, false
}

// tryOnce calls that method, if there is one.
func (a access) tryOnce(t *testing.T, ctx context.Context) (acquired bool, err error, there bool) {
	t.Helper()
	try, _ := a.try()
	if try == nil {
		return false, nil, false
	}
	c := make(chan bool, 1)
	go func() {
		acquired, err = try(ctx)
		c <- true
	}()
	receive(t, c, "Try"+a.name)
	return acquired, err, true
}

// A result is that of an acquire.
type result struct {
	*holding
	err error
}

// start acquires the lock in a goroutine, which has begun when start returns.
func (a access) start(ctx context.Context) <-chan result {
	c, begun := make(chan result, 1), make(chan bool)
	defer func() { <-begun }()
	go func() {
		close(begun)
		h, err := a.acquire(ctx, a.lock)
		c <- result{h, err}
	}()
	return c
}

// startWaiting acquires the lock, which somebody else holds, in a goroutine.
func (a access) startWaiting(t *testing.T, ctx context.Context) <-chan result {
	t.Helper()
	c := a.start(ctx)
	a.stillWaits(t, c)
	return c
}

// stillWaits checks for a moment that an acquire does not return.
func (a access) stillWaits(t *testing.T, c <-chan result) {
	t.Helper()
	select {
	case r := <-c:
		if r.err == nil {
			t.Fatalf("%s returned nil, though the lock is held", a.name)
		}
		t.Fatalf("%s returned, though its context is not done: %v", a.name, r.err)
	case <-time.After(brief):
	}
}

// pass acquires the lock and releases it at once, in a goroutine.
func (a access) pass() <-chan error {
	c := make(chan error, 1)
	go func() {
		h, err := a.acquire(context.Background(), a.lock)
		if err == nil {
			err = h.release()
		}
		c <- err
	}()
	return c
}

// mustGet waits for the end of an acquire that must succeed.
func (a access) mustGet(t *testing.T, c <-chan result) *holding {
	t.Helper()
	return a.mustGetAs(t, c, "of a lock that nobody else holds")
}

// mustGetAs is mustGet with a text that says why the acquire must succeed.
func (a access) mustGetAs(t *testing.T, c <-chan result, what string) *holding {
	t.Helper()
	r := receive(t, c, a.name+" "+what)
	if r.err != nil {
		t.Fatalf("%s: %v", a.name, r.err)
	}
	return r.holding
}

// mustAcquire acquires the lock, which must be free, or become so.
func (a access) mustAcquire(t *testing.T) *holding {
	t.Helper()
	return a.mustGet(t, a.start(context.Background()))
}

// mustBeFree acquires the lock and releases it.
func (a access) mustBeFree(t *testing.T) {
	t.Helper()
	mustRelease(t, a.mustAcquire(t))
}

// mustBeHeld checks that the lock cannot be acquired, and gives up.
func (a access) mustBeHeld(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c := a.startWaiting(t, ctx)
	cancel()
	r := receive(t, c, a.name+" with a context that is done")
	if r.err == nil {
		t.Fatalf("%s returned nil, though the lock is held", a.name)
	}
	checkError(t, r.err, "acquire", context.Canceled)
}

// mustFail waits for the end of an acquire that must fail, with an error that wraps all targets.
func (a access) mustFail(t *testing.T, c <-chan result, targets ...error) {
	t.Helper()
	r := receive(t, c, a.name+" with a context that is done")
	if r.err == nil {
		t.Fatalf("%s returned nil, want an error that wraps %v", a.name, targets)
	}
	checkError(t, r.err, "acquire", targets...)
}

func mustRelease(t *testing.T, h *holding) {
	t.Helper()
	if err := h.release(); err != nil {
		t.Fatalf("release: %v", err)
	}
}

// checkError checks that err is an *fs.PathError, or wraps one, and wraps all targets.
func checkError(t *testing.T, err error, op string, targets ...error) {
	t.Helper()
	var pathErr *fs.PathError
	switch {
	case err == nil:
		t.Errorf("%s returned nil, want an error that wraps %v", op, targets)
	case !errors.As(err, &pathErr):
		t.Errorf("the error of %s is not an *fs.PathError, but a %T: %v", op, err, err)
	case pathErr.Op != op || pathErr.Path == "":
		t.Errorf("the error of %s has Op %q and Path %q: %v", op, pathErr.Op, pathErr.Path, err)
	}
	for _, target := range targets {
		if err != nil && !errors.Is(err, target) {
			t.Errorf("the error of %s does not wrap %q: %v", op, target, err)
		}
		if err != nil && isContextError(target) {
			checkTimeout(t, err, op, target == context.DeadlineExceeded)
		}
	}
}

// checkTimeout checks that os.IsTimeout, which unwraps only errors of packages os and fs, knows
// whether there was a deadline.
func checkTimeout(t *testing.T, err error, op string, want bool) {
	t.Helper()
	if os.IsTimeout(err) != want {
		t.Errorf("os.IsTimeout of the error of %s is %t: %v", op, !want, err)
	}
}

func isContextError(err error) bool {
	return err == context.Canceled || err == context.DeadlineExceeded
}

// receive waits for a value. If none comes, the test fails.
func receive[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
	}
	t.Fatalf("%s has not ended in %v. Goroutines:\n%s", what, patience, stacks())
	panic("unreachable")
}

// inParallel calls f in n goroutines, and waits for all. It returns their errors: a goroutine
// that goes on after the test has failed must not use t.
func inParallel(t *testing.T, n int, f func(i int) error) error {
	t.Helper()
	errs := make(chan error, n)
	for i := range n {
		go func() { errs <- f(i) }()
	}
	var all []error
	for range n {
		all = append(all, receive(t, errs, "a goroutine"))
	}
	return errors.Join(all...)
}
