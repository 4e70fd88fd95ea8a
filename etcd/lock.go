package etcd

import (
	"context"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/lease"
)

var (
	_ fasteners.Locker                    = (*Lock)(nil)
	_ fasteners.ContextLocker             = (*Lock)(nil)
	_ fasteners.ReaderWriterLocker        = (*ReaderWriterLock)(nil)
	_ fasteners.ContextReaderWriterLocker = (*ReaderWriterLock)(nil)
)

// A Lock is an exclusive lock: one goroutine of one process on one machine holds it at a time. It
// excludes both readers and writers of a [ReaderWriterLock] of the same name in the same etcd.
//
// It may be used by any number of goroutines, and must not be copied. It is not reentrant. Locks
// of the same name exclude each other even if they are made from the same session.
type Lock struct{ handle lease.Handle[*hold] }

// NewLock returns a lock with that name, which is the prefix of its keys in etcd: all of them
// begin with the name and a slash. So a user of etcd who has the permission to read and write
// these can use the lock. The name must not be empty, nor contain "/q/", nor end in "/q". It is
// checked when the lock is acquired.
func NewLock(s *Session, name string) *Lock {
	return &Lock{newHandle(s, name)}
}

// Acquire acquires the lock, waiting until it is available or ctx is done. If ctx is already
// done, Acquire fails even if the lock is free. Waiters are served in order of arrival, over all
// machines. While etcd cannot be reached, Acquire waits.
//
// If Acquire returns nil, no other goroutine or process acquires the lock before [Lock.Release],
// unless the lock is lost: then Release says so. To be told in time, use [Lock.Hold] or
// [fasteners.WithLock].
//
// Otherwise it returns an [*fs.PathError] with the name as Path, and the lock is not held. The
// error wraps ctx.Err(), in a [fasteners.HeldError] if somebody else holds the lock; [ErrClosed];
// the error of etcd if that does not go away by itself, such as a missing permission; or
// [fs.ErrInvalid] if the name or an option is invalid. Its key in etcd, or what is still on its
// way there, is removed in the background. If the process exits before that, without
// [Session.Close], the key stays until the TTL is over.
func (l *Lock) Acquire(ctx context.Context) error { return l.handle.Acquire(ctx, lease.Exclusive) }

// TryAcquire acquires the lock without waiting for others to release it, and reports whether it
// succeeded. It returns false and a nil error if the lock is held, or if somebody waits for it.
// Unlike that of a lock file it has a context, since it has to wait for etcd.
func (l *Lock) TryAcquire(ctx context.Context) (bool, error) {
	return l.handle.TryAcquire(ctx, lease.Exclusive)
}

// Release releases the lock, which this or another goroutine acquired through l.
//
// If it returns nil, nobody else had the lock while it was held, provided that no key of the lock
// was deleted by other means than this package. Its error wraps [fasteners.ErrNotAcquired] if the
// lock was not held, and [fasteners.ErrLost] if it was lost, or if etcd did not answer in time to
// tell. Whatever the error, the lock is no longer held. While etcd does not answer, Release
// waits, but not much longer than the TTL.
//
// If the lock was lost and acquired again through l, Release does not know which one its caller
// means, and takes the older one. The functions that [Lock.Hold] returns do know.
func (l *Lock) Release() error { return l.handle.Release(lease.Exclusive) }

// Acquired reports whether the lock is held through l, and not known to be lost. The result may
// be stale by the time it is returned.
func (l *Lock) Acquired() bool { return l.handle.Acquired(lease.Exclusive) }

// Name returns the name that the lock was made with.
func (l *Lock) Name() string { return l.handle.Name }

// Hold acquires the lock for a [fasteners.ContextLocker]. The context has a token
// ([fasteners.Token]), and can be used with [Guard] and [Commit].
//
// The context is done, with a cause that wraps [fasteners.ErrLost], before etcd can give the lock
// to somebody else: when it has not answered for the TTL less the margin ([WithMargin]). Its
// methods Err and Done look at the clock, so also in a process that was stopped for longer than
// that, the next call of one of them tells. For a machine that was suspended, this is so on
// Linux; elsewhere the clock may stand still meanwhile. A context that is derived from it is done
// a moment later, and a channel that Done returned before the machine was suspended within a
// quarter of the TTL after that. Soon after somebody deletes the key or the lease in etcd, the
// context is done, too.
//
// It cannot stop what the process has already begun: between a look at the context and a write to
// somewhere, the process can be stopped for any time. Let the resource check the token, or use
// Commit.
func (l *Lock) Hold(ctx context.Context) (held context.Context, release func() error, err error) {
	return watched(l.handle.Hold(ctx, lease.Exclusive))
}
