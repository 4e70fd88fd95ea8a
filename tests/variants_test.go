//go:build unix || windows

package tests

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
)

// A variant is one of the ways to lock a file.
type variant struct {
	name    string
	shared  bool
	acquire func(context.Context) error
	try     func() (bool, error)
	release func() error
}

var variantNames = []string{"exclusive", "read", "write"}

func exclusiveOf(l *fasteners.InterProcessLock) variant {
	return variant{"exclusive", false, l.Acquire, l.TryAcquire, l.Release}
}

func readerOf(l *fasteners.InterProcessReaderWriterLock) variant {
	return variant{"read", true, l.AcquireReadLock, l.TryAcquireReadLock, l.ReleaseReadLock}
}

func writerOf(l *fasteners.InterProcessReaderWriterLock) variant {
	return variant{"write", false, l.AcquireWriteLock, l.TryAcquireWriteLock, l.ReleaseWriteLock}
}

// exclusive returns the exclusive variant of a new handle.
func exclusive(path string, opts ...fasteners.Option) variant {
	return exclusiveOf(fasteners.NewInterProcessLock(path, opts...))
}

// reader returns the read variant of a new handle.
func reader(path string, opts ...fasteners.Option) variant {
	return readerOf(fasteners.NewInterProcessReaderWriterLock(path, opts...))
}

// writer returns the write variant of a new handle.
func writer(path string, opts ...fasteners.Option) variant {
	return writerOf(fasteners.NewInterProcessReaderWriterLock(path, opts...))
}

// variants returns all variants, in the order of variantNames. The read and the write variant
// share a handle.
func variants(path string, opts ...fasteners.Option) []variant {
	rw := fasteners.NewInterProcessReaderWriterLock(path, opts...)
	return []variant{exclusive(path, opts...), readerOf(rw), writerOf(rw)}
}

func variantNamed(path, name string, opts ...fasteners.Option) variant {
	all := variants(path, opts...)
	i := slices.IndexFunc(all, func(v variant) bool { return v.name == name })
	if i < 0 {
		panic("no variant " + name)
	}
	return all[i]
}

func (v variant) mustAcquire(t testing.TB) {
	t.Helper()
	must(t, v.acquire(background))
}

func (v variant) mustRelease(t testing.TB) {
	t.Helper()
	must(t, v.release())
}

// mustTry tries to acquire the lock, checks the outcome, and releases the lock if it was acquired.
func (v variant) mustTry(t testing.TB, want bool) {
	t.Helper()
	got, err := v.try()
	must(t, err)
	if got != want {
		t.Fatalf("trying to acquire the %s lock: %v, want %v", v.name, got, want)
	}
	if got {
		v.mustRelease(t)
	}
}

// mustBecome tries to acquire the lock until the outcome is the wanted one.
func (v variant) mustBecome(t *testing.T, want bool) {
	t.Helper()
	for {
		ok, err := v.try()
		must(t, err)
		if ok {
			v.mustRelease(t)
		}
		if ok == want {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// goAcquire acquires the lock in a goroutine, and returns when that waits, and has not stopped
// waiting for a moment.
func (v variant) goAcquire(t testing.TB, ctx context.Context) <-chan error {
	t.Helper()
	done, id := make(chan error, 1), make(chan goroutineID, 1)
	go func() {
		id <- thisGoroutine()
		done <- v.acquire(ctx)
	}()
	for waiter := <-id; len(done) == 0 && !waiter.isWaiting(); {
		time.Sleep(time.Millisecond)
	}
	select {
	case err := <-done:
		t.Fatalf("acquiring the %s lock returned immediately (error %v), want it to block", v.name, err)
	case <-time.After(10 * time.Millisecond):
	}
	return done
}

// hold acquires the lock and releases it.
func (v variant) hold(ctx context.Context) error {
	if err := v.acquire(ctx); err != nil {
		return err
	}
	return v.release()
}
