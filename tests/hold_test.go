//go:build unix || windows

package tests

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
)

var (
	_ fasteners.ContextLocker             = (*fasteners.InterProcessLock)(nil)
	_ fasteners.ContextReaderWriterLocker = (*fasteners.InterProcessReaderWriterLock)(nil)
)

// A holdFunc acquires a lock in one of the ways that supply a context.
type holdFunc func(context.Context) (context.Context, func() error, error)

func holdFuncs(path string) map[string]holdFunc {
	rw := fasteners.NewInterProcessReaderWriterLock(path)
	return map[string]holdFunc{
		"exclusive": fasteners.NewInterProcessLock(path).Hold,
		"read":      rw.HoldRead,
		"write":     rw.HoldWrite,
	}
}

// The context of a hold has what ctx has, and is done when ctx is, and when the lock is released,
// whenever somebody asks first.
func TestContextOfHold(t *testing.T) {
	type key struct{}
	path := lockPath(t)
	for name, hold := range holdFuncs(path) {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(context.WithValue(background, key{}, "value"))
			ctx, cancelDeadline := context.WithTimeout(ctx, time.Hour)
			defer cancelDeadline()
			held, release, err := hold(ctx)
			must(t, err)
			if held.Value(key{}) != "value" || held.Value("other") != nil {
				t.Error("a value is not that of ctx")
			}
			if d, ok := held.Deadline(); !ok || time.Until(d) < time.Minute {
				t.Error("the deadline is not that of ctx")
			}
			if text := fmt.Sprint(held); !strings.HasSuffix(text, ".held") {
				t.Errorf("the context prints as %s", text)
			}
			if err := context.Cause(held); err != nil || held.Err() != nil {
				t.Errorf("held, and the error of the context is %v", err)
			}
			child, cancelChild := context.WithCancel(held)
			defer cancelChild()
			must(t, release())
			<-held.Done()
			<-child.Done()
			if held.Err() != context.Canceled || context.Cause(held) != context.Canceled {
				t.Errorf("released, and the error of the context is %v, cause %v", held.Err(), context.Cause(held))
			}

			held, release, err = hold(ctx)
			must(t, err)
			cancel(errCause)
			<-held.Done()
			if held.Err() != context.Canceled || context.Cause(held) != errCause {
				t.Errorf("canceled, and the error of the context is %v, cause %v", held.Err(), context.Cause(held))
			}
			must(t, release())

			held, release, err = hold(background)
			must(t, err)
			must(t, release())
			<-held.Done() // only now somebody asks
			if held.Err() != context.Canceled {
				t.Errorf("asked after the release, the error of the context is %v", held.Err())
			}

			held, release, err = hold(ctx)
			checkError(t, err, "acquire", path, context.Canceled)
			if held != nil || release != nil {
				t.Error("a hold that has failed has a context, or a release")
			}
		})
	}
}

// The context of fn ends when the lock file is removed or replaced, with that cause. The release
// reports it, too.
func TestContextOfLostHold(t *testing.T) {
	needReplaceableFiles(t)
	path := lockPath(t)
	for name, hold := range holdFuncs(path) {
		t.Run(name, func(t *testing.T) {
			held, release, err := hold(background)
			must(t, err)
			child, cancel := context.WithCancel(held)
			defer cancel()
			must(t, os.Remove(path))
			<-child.Done()
			for _, ctx := range []context.Context{held, child} {
				cause := context.Cause(ctx)
				if ctx.Err() != context.Canceled || !errors.Is(cause, fasteners.ErrReplaced) || !errors.Is(cause, fasteners.ErrLost) {
					t.Errorf("error is %v, cause %v", ctx.Err(), cause)
				}
			}
			checkError(t, release(), "release", path, fasteners.ErrReplaced)

			// Found only by the release.
			held, release, err = hold(background)
			must(t, err)
			done := held.Done()
			must(t, os.Remove(path))
			checkError(t, release(), "release", path, fasteners.ErrLost)
			<-done
			if cause := context.Cause(held); !errors.Is(cause, fasteners.ErrReplaced) {
				t.Errorf("cause is %v", cause)
			}
		})
	}
	lock := fasteners.NewInterProcessLock(path)
	err := fasteners.WithLock(background, lock, func(ctx context.Context) error {
		must(t, os.Remove(path))
		<-ctx.Done()
		return context.Cause(ctx)
	})
	if !errors.Is(err, fasteners.ErrReplaced) {
		t.Errorf("error is %v", err)
	}
}

// A release ends its own hold and no other, and only once.
func TestReleaseOfHold(t *testing.T) {
	path := lockPath(t)
	rw := fasteners.NewInterProcessReaderWriterLock(path)
	first, releaseFirst, err := rw.HoldRead(background)
	must(t, err)
	second, releaseSecond, err := rw.HoldRead(background)
	must(t, err)
	must(t, releaseFirst())
	checkError(t, releaseFirst(), "release", path, fasteners.ErrNotAcquired)
	if first.Err() == nil || second.Err() != nil {
		t.Errorf("errors of the contexts: %v, %v", first.Err(), second.Err())
	}
	exclusive(path).mustTry(t, false)
	must(t, releaseSecond())
	exclusive(path).mustTry(t, true)

	// Release ends a hold, too.
	lock := fasteners.NewInterProcessLock(path)
	_, release, err := lock.Hold(background)
	must(t, err)
	if !lock.Acquired() {
		t.Error("held, and not acquired")
	}
	must(t, lock.Release())
	checkError(t, release(), "release", path, fasteners.ErrNotAcquired)

	// Then another one through the same handle is not the one that release ends.
	held, release, err := lock.Hold(background)
	must(t, err)
	acquired := exclusiveOf(lock).goAcquire(t, background)
	must(t, lock.Release())
	must(t, <-acquired)
	if held.Err() != context.Canceled {
		t.Errorf("after Release, the error of the context is %v", held.Err())
	}
	checkError(t, release(), "release", path, fasteners.ErrNotAcquired)
	exclusive(path).mustTry(t, false)
	must(t, lock.Release())
	exclusive(path).mustTry(t, true)
}

// Release ends a hold that has no release of its own, if there is one, even if another hold is of a
// file that was removed.
func TestReleaseBesideLostHold(t *testing.T) {
	needReplaceableFiles(t)
	path := lockPath(t)
	rw := fasteners.NewInterProcessReaderWriterLock(path)
	_, release, err := rw.HoldRead(background)
	must(t, err)
	must(t, os.Remove(path))
	must(t, rw.AcquireReadLock(background)) // of the new file
	must(t, rw.ReleaseReadLock())
	exclusive(path).mustTry(t, true)
	checkError(t, release(), "release", path, fasteners.ErrReplaced)
}

// A downgraded hold is still the one that WithWriteLock ends.
func TestDowngradeOfHold(t *testing.T) {
	path := lockPath(t)
	lock := fasteners.NewInterProcessReaderWriterLock(path)
	must(t, fasteners.WithWriteLock(background, lock, func(ctx context.Context) error {
		must(t, lock.Downgrade())
		reader(path).mustTry(t, true)
		exclusive(path).mustTry(t, false)
		if ctx.Err() != nil {
			t.Errorf("the error of the context is %v", ctx.Err())
		}
		return nil
	}))
	exclusive(path).mustTry(t, true)
}

// A plainLocker is a Locker and nothing else.
type plainLocker struct{ fasteners.Locker }

type plainReaderWriterLocker struct{ fasteners.ReaderWriterLocker }

// A Locker that supplies no context is used as it is: fn gets ctx itself.
func TestPlainLockers(t *testing.T) {
	path := lockPath(t)
	lock := plainLocker{fasteners.NewInterProcessLock(path)}
	rw := plainReaderWriterLocker{fasteners.NewInterProcessReaderWriterLock(path)}
	calls := 0
	fn := func(ctx context.Context) error {
		if ctx != background {
			t.Errorf("the context of fn is %v", ctx)
		}
		exclusive(path).mustTry(t, false)
		calls++
		return nil
	}
	must(t, fasteners.WithLock(background, lock, fn))
	must(t, fasteners.WithReadLock(background, rw, fn))
	must(t, fasteners.WithWriteLock(background, rw, fn))
	if calls != 3 {
		t.Errorf("%d calls", calls)
	}
}
