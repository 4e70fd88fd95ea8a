package fasteners

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
)

// A Locker is an exclusive lock whose acquisition can be bounded by a context, such as an
// [InterProcessLock] or a distributed lock. Package lockertest tests implementations.
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

// A ContextLocker is a [Locker] that tells its holds apart, and supplies a context for each. [InterProcessLock]
// is one. [WithLock] uses Hold instead of Acquire and Release where a Locker has it. A type that embeds the
// interface Locker does not have it, whatever lock is inside.
//
// Hold acquires the lock as Acquire does. The context held is derived from ctx. It is done when the lock is
// released, and as soon as somebody else may have the lock, as far as that can be noticed: then its cause
// ([context.Cause]) wraps [ErrLost]. The function release ends this hold and no other. If it is called
// again, or the hold has been ended by Release, its error wraps [ErrNotAcquired].
type ContextLocker interface {
	Hold(ctx context.Context) (held context.Context, release func() error, err error)
}

// A ContextReaderWriterLocker is for a [ReaderWriterLocker] what a [ContextLocker] is for a [Locker].
// [InterProcessReaderWriterLock] is one. [WithReadLock] and [WithWriteLock] use it.
type ContextReaderWriterLocker interface {
	HoldRead(ctx context.Context) (held context.Context, release func() error, err error)
	HoldWrite(ctx context.Context) (held context.Context, release func() error, err error)
}

// Token returns the fencing token of the innermost hold that ctx is the context of and that has a token. A
// token is greater than that of every earlier hold of the same lock that excludes this one. So a resource
// that refuses a token below the greatest it has seen refuses the writes of a holder that has lost the lock.
//
// Locks on other machines have tokens ([ContextWithToken]). Lock files have none.
func Token(ctx context.Context) (token int64, ok bool) {
	token, ok = ctx.Value(tokenKey{}).(int64)
	return token, ok
}

// ContextWithToken returns a context derived from ctx that has a fencing token. It is for those who implement
// a [ContextLocker].
func ContextWithToken(ctx context.Context, token int64) context.Context {
	return context.WithValue(ctx, tokenKey{}, token)
}

type tokenKey struct{}

// ErrLost is wrapped by the cause of the end of a hold's context if somebody else may have acquired the lock
// meanwhile. [ErrReplaced] wraps it.
var ErrLost = errors.New("lock was lost")

// WithLock acquires l, calls fn, and releases l, even if fn panics or calls [runtime.Goexit]. To bound the
// wait for l, but not fn, use [WithTimeout].
//
// The context of fn is derived from ctx. If l is a [ContextLocker], it is done when fn returns, and with a
// cause that wraps [ErrLost] as soon as l is found to be lost, which for a lock file can take a second. If
// fn, or a goroutine that fn has started, waits for the same lock file with this context, the error and the
// notices ([WithWaitNotice]) of that wait tell that the caller itself holds the lock.
//
// If l cannot be acquired, WithLock returns that error and does not call fn. Otherwise it returns the error
// of fn, joined ([errors.Join]) with the error of the release if that fails, too. If l or fn is nil, the
// error wraps [fs.ErrInvalid].
func WithLock(ctx context.Context, l Locker, fn func(context.Context) error) error {
	if l == nil || fn == nil {
		return errNilArgument
	}
	if c, ok := l.(ContextLocker); ok {
		return withHold(ctx, c.Hold, fn)
	}
	return with(ctx, l.Acquire, l.Release, fn)
}

// WithReadLock calls fn while it holds l as a reader. Otherwise it behaves like [WithLock].
func WithReadLock(ctx context.Context, l ReaderWriterLocker, fn func(context.Context) error) error {
	if l == nil || fn == nil {
		return errNilArgument
	}
	if c, ok := l.(ContextReaderWriterLocker); ok {
		return withHold(ctx, c.HoldRead, fn)
	}
	return with(ctx, l.AcquireReadLock, l.ReleaseReadLock, fn)
}

// WithWriteLock calls fn while it holds l as a writer. Otherwise it behaves like [WithLock].
func WithWriteLock(ctx context.Context, l ReaderWriterLocker, fn func(context.Context) error) error {
	if l == nil || fn == nil {
		return errNilArgument
	}
	if c, ok := l.(ContextReaderWriterLocker); ok {
		return withHold(ctx, c.HoldWrite, fn)
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

func with(ctx context.Context, acquire func(context.Context) error, release func() error, fn func(context.Context) error) error {
	if err := acquire(ctx); err != nil {
		return err
	}
	return callAndRelease(ctx, release, fn)
}

func withHold(ctx context.Context, hold func(context.Context) (context.Context, func() error, error), fn func(context.Context) error) error {
	held, release, err := hold(ctx)
	if err != nil {
		return err
	}
	return callAndRelease(held, release, fn)
}

func callAndRelease(ctx context.Context, release func() error, fn func(context.Context) error) (err error) {
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
