package fasteners

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
)

// A Locker is a lock with one holder: an [InterProcessLock], or any other that may be waited for under a
// context, a distributed one say.
type Locker interface {
	Acquire(context.Context) error
	Release() error
}

// A ReaderWriterLocker is a lock with many readers or one writer: an [InterProcessReaderWriterLock], or
// any other that may be waited for under a context.
type ReaderWriterLocker interface {
	AcquireReadLock(context.Context) error
	ReleaseReadLock() error
	AcquireWriteLock(context.Context) error
	ReleaseWriteLock() error
}

// WithLock calls fn while it holds l. It waits for l, but not for fn, until ctx is done, and passes ctx
// on to fn.
//
// If l cannot be acquired, it returns that error and does not call fn. Otherwise it returns fn's error,
// joined with that of the release if that fails too ([errors.Join]); l is released even if fn panics or
// calls [runtime.Goexit]. Its error wraps [fs.ErrInvalid] if l or fn is nil.
func WithLock(ctx context.Context, l Locker, fn func(context.Context) error) error {
	if l == nil || fn == nil {
		return errNil
	}
	return with(ctx, l.Acquire, l.Release, fn)
}

// WithReadLock calls fn while it holds l as a reader. In all else it is as [WithLock].
func WithReadLock(ctx context.Context, l ReaderWriterLocker, fn func(context.Context) error) error {
	if l == nil || fn == nil {
		return errNil
	}
	return with(ctx, l.AcquireReadLock, l.ReleaseReadLock, fn)
}

// WithWriteLock calls fn while it holds l as a writer. In all else it is as [WithLock].
func WithWriteLock(ctx context.Context, l ReaderWriterLocker, fn func(context.Context) error) error {
	if l == nil || fn == nil {
		return errNil
	}
	return with(ctx, l.AcquireWriteLock, l.ReleaseWriteLock, fn)
}

// InterProcessLocked returns a function that calls fn while it holds an [InterProcessLock] on path, as
// [WithLock] does. The function may be called by any number of goroutines.
func InterProcessLocked(path string, fn func(context.Context) error, opts ...Option) func(context.Context) error {
	l := NewInterProcessLock(path, opts...)
	return func(ctx context.Context) error { return WithLock(ctx, l, fn) }
}

// InterProcessReadLocked returns a function that calls fn while it holds an
// [InterProcessReaderWriterLock] on path as a reader. In all else it is as [InterProcessLocked].
func InterProcessReadLocked(path string, fn func(context.Context) error, opts ...Option) func(context.Context) error {
	l := NewInterProcessReaderWriterLock(path, opts...)
	return func(ctx context.Context) error { return WithReadLock(ctx, l, fn) }
}

// InterProcessWriteLocked returns a function that calls fn while it holds an
// [InterProcessReaderWriterLock] on path as a writer. In all else it is as [InterProcessLocked].
func InterProcessWriteLocked(path string, fn func(context.Context) error, opts ...Option) func(context.Context) error {
	l := NewInterProcessReaderWriterLock(path, opts...)
	return func(ctx context.Context) error { return WithWriteLock(ctx, l, fn) }
}

var errNil = fmt.Errorf("fasteners: nil lock or function: %w", fs.ErrInvalid)

func with(ctx context.Context, acquire func(context.Context) error, release func() error, fn func(context.Context) error) (err error) {
	if err := acquire(ctx); err != nil {
		return err
	}
	// Deferred, as fn may not return.
	defer func() {
		switch releaseErr := release(); {
		case err == nil:
			err = releaseErr
		case releaseErr != nil:
			err = errors.Join(err, releaseErr)
		}
	}()
	return fn(ctx)
}
