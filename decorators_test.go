//go:build unix || windows

package fasteners_test

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
	errFn := errors.New("of the function")
	for _, d := range decorators {
		t.Run(d.name, func(t *testing.T) {
			path := lockPath(t)
			rw := fasteners.NewInterProcessReaderWriterLock(path)
			type key struct{}
			ctx := context.WithValue(background, key{}, "value")

			called := false
			must(t, d.run(path, ctx, func(ctx context.Context) error {
				called = true
				if ctx.Value(key{}) != "value" {
					t.Error("the function has another context")
				}
				reader(rw).mustTry(t, d.shared)
				writer(rw).mustTry(t, false)
				return nil
			}))
			if !called {
				t.Error("the function was not called")
			}
			writer(rw).mustTry(t, true)

			if err := d.run(path, ctx, func(context.Context) error { return errFn }); err != errFn {
				t.Errorf("error is %v, want that of the function itself", err)
			}
			writer(rw).mustTry(t, true)

			done, cancel := context.WithCancel(ctx)
			cancel()
			err := d.run(path, done, func(context.Context) error {
				t.Error("the function was called without the lock")
				return nil
			})
			checkError(t, err, "acquire", path, context.Canceled)

			func() {
				defer func() {
					if p := recover(); p != "panic" {
						t.Errorf("recovered %v, want the panic of the function", p)
					}
				}()
				_ = d.run(path, ctx, func(context.Context) error { panic("panic") })
				t.Error("the panic has stopped")
			}()
			writer(rw).mustTry(t, true)

			gone := make(chan bool)
			go func() {
				defer close(gone)
				_ = d.run(path, ctx, func(context.Context) error { runtime.Goexit(); return nil })
				t.Error("the goroutine goes on")
			}()
			<-gone
			writer(rw).mustTry(t, true)

			if err := d.run(path, ctx, nil); !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("error without a function is %v", err)
			}
			writer(rw).mustTry(t, true)
		})
	}
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

// An error of the release comes to light, beside that of the function if there is one.
func TestErrorOfTheRelease(t *testing.T) {
	if !filesCanBeReplacedWhileOpen {
		t.Skip("an open file cannot be removed here")
	}
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

// A lock of another kind, as one on a distributed store would be.
type remote struct{ log []string }

func (r *remote) Acquire(context.Context) error { r.log = append(r.log, "acquire"); return nil }
func (r *remote) Release() error                { r.log = append(r.log, "release"); return nil }

func TestAnyLockerCanBeUsed(t *testing.T) {
	var r remote
	must(t, fasteners.WithLock(background, &r, func(context.Context) error {
		r.log = append(r.log, "fn")
		return nil
	}))
	if got := fmt.Sprint(r.log); got != "[acquire fn release]" {
		t.Error(got)
	}
}
