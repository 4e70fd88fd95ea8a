package fasteners

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
)

// A Locker is an exclusive lock whose acquisition can be bounded by a context, such as an
// [InterProcessLock] or a distributed lock.
type Locker interface {
	Acquire(context.Context) error
	Release() error
}

// A ReaderWriterLocker is a lock that either one writer or any number of readers hold, and whose
// acquisition can be bounded by a context, such as an [InterProcessReaderWriterLock].
type ReaderWriterLocker interface {
	AcquireReadLock(context.Context) error
	ReleaseReadLock() error
	AcquireWriteLock(context.Context) error
	ReleaseWriteLock() error
}

// WithLock acquires l, calls fn, and releases l, even if fn panics or calls [runtime.Goexit]. It passes ctx
// on to fn: to bound only the wait for l, pass a context with a deadline, and let fn use another one.
//
// If l cannot be acquired, WithLock returns that error and does not call fn. Otherwise it returns the error
// of fn, joined ([errors.Join]) with the error of the release if that fails, too. If l or fn is nil, the
// error wraps [fs.ErrInvalid].
func WithLock(ctx context.Context, l Locker, fn func(context.Context) error) error {
	if l == nil || fn == nil {
		return errNilArgument
	}
	return with(ctx, l.Acquire, l.Release, fn)
}

// WithReadLock calls fn while it holds l as a reader. Otherwise it behaves like [WithLock].
func WithReadLock(ctx context.Context, l ReaderWriterLocker, fn func(context.Context) error) error {
	if l == nil || fn == nil {
		return errNilArgument
	}
	return with(ctx, l.AcquireReadLock, l.ReleaseReadLock, fn)
}

// WithWriteLock calls fn while it holds l as a writer. Otherwise it behaves like [WithLock].
func WithWriteLock(ctx context.Context, l ReaderWriterLocker, fn func(context.Context) error) error {
	if l == nil || fn == nil {
		return errNilArgument
	}
	return with(ctx, l.AcquireWriteLock, l.ReleaseWriteLock, fn)
}

// InterProcessLocked returns a function that calls fn while it holds an [InterProcessLock] on path, as
// [WithLock] does. Any number of goroutines may call it.
func InterProcessLocked(path string, fn func(context.Context) error, opts ...Option) func(context.Context) error {
	l := NewInterProcessLock(path, opts...)
	return func(ctx context.Context) error { return WithLock(ctx, l, fn) }
}

// InterProcessReadLocked returns a function that calls fn while it holds an
// [InterProcessReaderWriterLock] on path as a reader. Otherwise it behaves like [InterProcessLocked].
func InterProcessReadLocked(path string, fn func(context.Context) error, opts ...Option) func(context.Context) error {
	l := NewInterProcessReaderWriterLock(path, opts...)
	return func(ctx context.Context) error { return WithReadLock(ctx, l, fn) }
}

// InterProcessWriteLocked returns a function that calls fn while it holds an
// [InterProcessReaderWriterLock] on path as a writer. Otherwise it behaves like [InterProcessLocked].
func InterProcessWriteLocked(path string, fn func(context.Context) error, opts ...Option) func(context.Context) error {
	l := NewInterProcessReaderWriterLock(path, opts...)
	return func(ctx context.Context) error { return WithWriteLock(ctx, l, fn) }
}

var errNilArgument = fmt.Errorf("fasteners: nil lock or function: %w", fs.ErrInvalid)

func with(ctx context.Context, acquire func(context.Context) error, release func() error, fn func(context.Context) error) (err error) {
	if err := acquire(ctx); err != nil {
		return err
	}
	// Deferred, since fn may panic or call runtime.Goexit.
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
