//go:build unix || windows

package tests

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"testing"

	"github.com/go-fasteners/fasteners"
)

// A decorator is one way to run a function under a lock on path.
type decorator struct {
	name   string
	shared bool
	run    func(path string, ctx context.Context, fn func(context.Context) error) error
}

var decorators = []decorator{
	{"WithLock", false, func(path string, ctx context.Context, fn func(context.Context) error) error {
		return fasteners.WithLock(ctx, fasteners.NewInterProcessLock(path), fn)
	}},
	{"WithReadLock", true, func(path string, ctx context.Context, fn func(context.Context) error) error {
		return fasteners.WithReadLock(ctx, fasteners.NewInterProcessReaderWriterLock(path), fn)
	}},
	{"WithWriteLock", false, func(path string, ctx context.Context, fn func(context.Context) error) error {
		return fasteners.WithWriteLock(ctx, fasteners.NewInterProcessReaderWriterLock(path), fn)
	}},
	{"InterProcessLocked", false, func(path string, ctx context.Context, fn func(context.Context) error) error {
		return fasteners.InterProcessLocked(path, fn)(ctx)
	}},
	{"InterProcessReadLocked", true, func(path string, ctx context.Context, fn func(context.Context) error) error {
		return fasteners.InterProcessReadLocked(path, fn)(ctx)
	}},
	{"InterProcessWriteLocked", false, func(path string, ctx context.Context, fn func(context.Context) error) error {
		return fasteners.InterProcessWriteLocked(path, fn)(ctx)
	}},
}

func TestDecorators(t *testing.T) {
	for _, d := range decorators {
		t.Run(d.name, func(t *testing.T) {
			checkFunctionIsCalled(t, d)
			checkFunctionIsNotCalled(t, d)
			checkFunctionDoesNotReturn(t, d)
		})
	}
}

// checkFunctionIsCalled checks that d calls the function with the given context and under the lock,
// and returns its error.
func checkFunctionIsCalled(t *testing.T, d decorator) {
	t.Helper()
	path := lockPath(t)
	r, w := reader(path), writer(path)
	type key struct{}
	ctx := context.WithValue(background, key{}, "value")
	called := false
	must(t, d.run(path, ctx, func(ctx context.Context) error {
		called = true
		if ctx.Value(key{}) != "value" {
			t.Error("the function is called with another context")
		}
		r.mustTry(t, d.shared)
		w.mustTry(t, false)
		return nil
	}))
	if !called {
		t.Error("the function was not called")
	}
	w.mustTry(t, true)

	want := errors.New("of the function")
	if err := d.run(path, ctx, func(context.Context) error { return want }); err != want {
		t.Errorf("error is %v, want the error of the function", err)
	}
	w.mustTry(t, true)
}

// checkFunctionIsNotCalled checks that d returns an error if it does not acquire the lock, or if
// there is no function.
func checkFunctionIsNotCalled(t *testing.T, d decorator) {
	t.Helper()
	path := lockPath(t)
	ctx, cancel := context.WithCancel(background)
	cancel()
	err := d.run(path, ctx, func(context.Context) error {
		t.Error("the function was called without the lock")
		return nil
	})
	checkError(t, err, "acquire", path, context.Canceled)

	if err := d.run(path, background, nil); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("error without a function is %v", err)
	}
	writer(path).mustTry(t, true)
}

// checkFunctionDoesNotReturn checks that d releases the lock if the function panics or ends the
// goroutine.
func checkFunctionDoesNotReturn(t *testing.T, d decorator) {
	t.Helper()
	path := lockPath(t)
	func() {
		defer func() {
			if p := recover(); p != "panic" {
				t.Errorf("recovered %v, want the panic of the function", p)
			}
		}()
		_ = d.run(path, background, func(context.Context) error { panic("panic") })
		t.Error("the panic was recovered")
	}()
	writer(path).mustTry(t, true)

	ended := make(chan bool)
	go func() {
		defer close(ended)
		_ = d.run(path, background, func(context.Context) error { runtime.Goexit(); return nil })
		t.Error("the goroutine goes on")
	}()
	<-ended
	writer(path).mustTry(t, true)
}

func TestNilLock(t *testing.T) {
	fn := func(context.Context) error { t.Error("called"); return nil }
	for _, err := range []error{
		fasteners.WithLock(background, nil, fn),
		fasteners.WithReadLock(background, nil, fn),
		fasteners.WithWriteLock(background, nil, fn),
	} {
		if !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("error is %v", err)
		}
	}
}

// The error of the release is returned, together with the error of the function if there is one.
func TestReleaseError(t *testing.T) {
	needReplaceableFiles(t)
	errFn := errors.New("of the function")
	for _, d := range decorators {
		path := lockPath(t)
		for _, want := range []error{nil, errFn} {
			err := d.run(path, background, func(context.Context) error {
				must(t, os.Remove(path))
				return want
			})
			if !errors.Is(err, fasteners.ErrReplaced) || want != nil && !errors.Is(err, want) {
				t.Errorf("%s: error is %v", d.name, err)
			}
		}
	}
}

// A fakeLock is a Locker that is not backed by a file. It records the calls.
type fakeLock struct{ calls []string }

func (l *fakeLock) Acquire(context.Context) error { l.calls = append(l.calls, "acquire"); return nil }
func (l *fakeLock) Release() error                { l.calls = append(l.calls, "release"); return nil }

func TestOtherLocker(t *testing.T) {
	var l fakeLock
	must(t, fasteners.WithLock(background, &l, func(context.Context) error {
		l.calls = append(l.calls, "fn")
		return nil
	}))
	if got := fmt.Sprint(l.calls); got != "[acquire fn release]" {
		t.Errorf("calls are %s", got)
	}
}

// A tokenLocker is a ContextLocker whose holds have tokens.
type tokenLocker struct {
	fasteners.Locker
	token int64
}

func (l *tokenLocker) Hold(ctx context.Context) (context.Context, func() error, error) {
	l.token++
	return fasteners.ContextWithToken(ctx, l.token), func() error { return nil }, nil
}

func TestToken(t *testing.T) {
	outer, inner := &tokenLocker{token: 10}, &tokenLocker{token: 20}
	file := fasteners.NewInterProcessLock(lockPath(t))
	check := func(ctx context.Context, want int64) {
		t.Helper()
		if got, ok := fasteners.Token(ctx); got != want || ok != (want != 0) {
			t.Errorf("token is %d, %t, want %d", got, ok, want)
		}
	}
	check(background, 0)
	must(t, fasteners.WithLock(background, file, func(ctx context.Context) error {
		check(ctx, 0)
		return fasteners.WithLock(ctx, outer, func(ctx context.Context) error {
			check(ctx, 11)
			must(t, fasteners.WithLock(ctx, inner, func(ctx context.Context) error {
				check(ctx, 21)
				return nil
			}))
			check(ctx, 11)
			return nil
		})
	}))
	must(t, fasteners.WithLock(background, outer, func(ctx context.Context) error {
		return fasteners.WithLock(ctx, file, func(ctx context.Context) error {
			check(ctx, 12) // lock files have none
			return nil
		})
	}))
}
