package fasteners

import (
	"context"
	"errors"
)

// WithLock acquires l, calls fn, and releases l, even if fn panics or calls [runtime.Goexit].
// To bound the wait for l, but not fn, use [WithTimeout].
//
// The context of fn is derived from ctx. If l is a [ContextLocker], it is done when fn returns,
// and with a cause that wraps [ErrLost] as soon as l is found to be lost, which for a lock file
// can take a second. If fn, or a goroutine that fn has started, waits for the same lock file
// with this context, the error and the notices ([WithWaitNotice]) of that wait tell that the
// caller itself holds the lock.
//
// If l cannot be acquired, WithLock returns that error and does not call fn. Otherwise it
// returns the error of fn, joined ([errors.Join]) with the error of the release if that fails,
// too. If l or fn is nil, the error wraps [fs.ErrInvalid].
func WithLock(ctx context.Context, l Locker, fn func(context.Context) error) error {
	if l == nil || fn == nil {
		return errNilArgument
	}
	if c, ok := l.(ContextLocker); ok {
		return with(ctx, c.Hold, fn)
	}
	if err := l.Acquire(ctx); err != nil {
		return err
	}
	return callAndRelease(ctx, l.Release, fn)
}

// WithReadLock calls fn while it holds l as a reader. Otherwise it behaves like [WithLock].
func WithReadLock(
	ctx context.Context, l ReaderWriterLocker, fn func(context.Context) error,
) error {
	if l == nil || fn == nil {
		return errNilArgument
	}
	if c, ok := l.(ContextReaderWriterLocker); ok {
		return with(ctx, c.HoldRead, fn)
	}
	if err := l.AcquireReadLock(ctx); err != nil {
		return err
	}
	return callAndRelease(ctx, l.ReleaseReadLock, fn)
}

// WithWriteLock calls fn while it holds l as a writer. Otherwise it behaves like [WithLock].
func WithWriteLock(
	ctx context.Context, l ReaderWriterLocker, fn func(context.Context) error,
) error {
	if l == nil || fn == nil {
		return errNilArgument
	}
	if c, ok := l.(ContextReaderWriterLocker); ok {
		return with(ctx, c.HoldWrite, fn)
	}
	if err := l.AcquireWriteLock(ctx); err != nil {
		return err
	}
	return callAndRelease(ctx, l.ReleaseWriteLock, fn)
}

// InterProcessLocked returns a function that calls fn while it holds an [InterProcessLock] on
// path, as [WithLock] does. Any number of goroutines may call it.
func InterProcessLocked(
	path string, fn func(context.Context) error, opts ...Option,
) func(context.Context) error {
	l := NewInterProcessLock(path, opts...)
	return func(ctx context.Context) error { return WithLock(ctx, l, fn) }
}

// InterProcessReadLocked returns a function that calls fn while it holds an
// [InterProcessReaderWriterLock] on path as a reader. Otherwise it behaves like
// [InterProcessLocked].
func InterProcessReadLocked(
	path string, fn func(context.Context) error, opts ...Option,
) func(context.Context) error {
	l := NewInterProcessReaderWriterLock(path, opts...)
	return func(ctx context.Context) error { return WithReadLock(ctx, l, fn) }
}

// InterProcessWriteLocked returns a function that calls fn while it holds an
// [InterProcessReaderWriterLock] on path as a writer. Otherwise it behaves like
// [InterProcessLocked].
func InterProcessWriteLocked(
	path string, fn func(context.Context) error, opts ...Option,
) func(context.Context) error {
	l := NewInterProcessReaderWriterLock(path, opts...)
	return func(ctx context.Context) error { return WithWriteLock(ctx, l, fn) }
}

// with calls fn while it holds a lock through the method of a [ContextLocker].
func with(
	ctx context.Context,
	hold func(context.Context) (held context.Context, release func() error, err error),
	fn func(context.Context) error,
) error {
	held, release, err := hold(ctx)
	if err != nil {
		return err
	}
	return callAndRelease(held, release, fn)
}

// callAndRelease releases the lock in a deferred call, since fn may panic or call runtime.Goexit.
func callAndRelease(
	ctx context.Context, release func() error, fn func(context.Context) error,
) (err error) {
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
