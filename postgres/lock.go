package postgres

import (
	"context"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/lease"
)

var (
	_ fasteners.Locker        = (*Lock)(nil)
	_ fasteners.ContextLocker = (*Lock)(nil)
)

// A Lock is an exclusive lock: one goroutine of one process holds it at a time.
// It excludes both readers and writers of a [ReaderWriterLock] of the same name
// in the same database.
//
// It may be used by any number of goroutines, and must not be copied. It is not
// reentrant. When the process exits, for whatever reason, the server releases
// the lock.
type Lock struct{ handle lease.Handle[*hold] }

// NewLock returns a lock on a name. Any name that is not empty will do. Nothing
// is sent to the server before the lock is acquired.
func NewLock(db *DB, name string) *Lock { return &Lock{newHandle(db, name)} }

// Acquire acquires the lock, waiting until it is available or ctx is done. If
// ctx is already done, Acquire fails even if the lock is free. While the server
// cannot be reached, is being started, or has no connection left, Acquire
// waits, too.
//
// If it fails, Acquire returns an [*fs.PathError], whose Path is the name, and
// the lock is not held. The error wraps ctx.Err(), in a [fasteners.HeldError]
// if somebody else holds the lock, and together with the last error of the
// server if the wait was for that; or [ErrClosed], [ErrPooler], another error
// of the server, or [fs.ErrInvalid] if the name or an option is invalid.
//
// The caller does not get to know when the lock is lost, before it releases it:
// see [Lock.Hold].
func (l *Lock) Acquire(ctx context.Context) error { return l.handle.Acquire(ctx, lease.Exclusive) }

// TryAcquire acquires the lock without waiting for it and reports whether it
// succeeded. It returns false and a nil error if the lock is held, or if a
// goroutine of this process is waiting for it, or if the server was started so
// recently that a holder from before may still take itself for one. If the
// server cannot be reached, it returns an error.
func (l *Lock) TryAcquire(ctx context.Context) (bool, error) {
	return l.handle.TryAcquire(ctx, lease.Exclusive)
}

// Release releases the lock, which this or another goroutine acquired through l.
//
// If it returns nil, nobody else has had the lock since it was acquired: the
// server has said so. Its error wraps [fasteners.ErrNotAcquired] if the lock
// was not held, and [fasteners.ErrLost] if somebody else may have had it.
// Whatever the error, the lock is no longer held. If the server does not
// answer, Release waits until the lock would have been lost.
//
// If the lock was lost and acquired again through l, Release does not know
// which one its caller means, and takes the one that was lost. The functions
// that [Lock.Hold] returns do know.
func (l *Lock) Release() error { return l.handle.Release(lease.Exclusive) }

// Acquired reports whether the lock is held through l, and not known to be
// lost. The result may be stale by the time it is returned.
func (l *Lock) Acquired() bool { return l.handle.Acquired(lease.Exclusive) }

// Name returns the name that the lock was made with.
func (l *Lock) Name() string { return l.handle.Name }

// Hold acquires the lock for a [fasteners.ContextLocker]. The context held has
// the fencing token ([fasteners.Token]), and [InTx] begins transactions with
// it. Its methods Err and Done look at the clock: after the process was stopped
// or the machine suspended, they tell if the lock may be lost.
func (l *Lock) Hold(ctx context.Context) (held context.Context, release func() error, err error) {
	return l.handle.Hold(ctx, lease.Exclusive)
}
