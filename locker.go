package fasteners

import "context"

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

// A ContextLocker is a [Locker] that tells its holds apart, and supplies a context for each.
// [InterProcessLock] is one. [WithLock] uses Hold instead of Acquire and Release where a Locker
// has it. A type that embeds the interface Locker does not have it, whatever lock is inside.
//
// Hold acquires the lock as Acquire does. The context held is derived from ctx. It is done when
// the lock is released, and as soon as somebody else may have the lock, as far as that can be
// noticed: then its cause ([context.Cause]) wraps [ErrLost]. The function release ends this
// hold and no other. If it is called again, or the hold has been ended by Release, its error
// wraps [ErrNotAcquired].
type ContextLocker interface {
	Hold(ctx context.Context) (held context.Context, release func() error, err error)
}

// A ContextReaderWriterLocker is for a [ReaderWriterLocker] what a [ContextLocker] is for a
// [Locker]. [InterProcessReaderWriterLock] is one. [WithReadLock] and [WithWriteLock] use it.
type ContextReaderWriterLocker interface {
	HoldRead(ctx context.Context) (held context.Context, release func() error, err error)
	HoldWrite(ctx context.Context) (held context.Context, release func() error, err error)
}

// Token returns the fencing token of the innermost hold that ctx is the context of and that has
// a token. A token is greater than that of every earlier hold of the same lock that excludes
// this one. So a resource that refuses a token below the greatest it has seen refuses the
// writes of a holder that has lost the lock.
//
// Locks on other machines have tokens ([ContextWithToken]). Lock files have none.
func Token(ctx context.Context) (token int64, ok bool) {
	token, ok = ctx.Value(tokenKey{}).(int64)
	return token, ok
}

// ContextWithToken returns a context derived from ctx that has a fencing token. It is for those
// who implement a [ContextLocker].
func ContextWithToken(ctx context.Context, token int64) context.Context {
	return context.WithValue(ctx, tokenKey{}, token)
}

type tokenKey struct{}
