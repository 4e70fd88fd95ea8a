package etcd

import (
	"context"

	"github.com/go-fasteners/fasteners/lease"
)

// A ReaderWriterLock is held by any number of readers or one writer, on any machines. A [Lock] of
// the same name counts as a writer.
//
// Readers and writers are served in order of arrival: a reader waits for the writers that came
// before it, and a writer for all. So neither starve. The lock may be used by any number of
// goroutines, and must not be copied. It is not reentrant, and a read lock cannot be upgraded.
type ReaderWriterLock struct{ handle lease.Handle[*hold] }

// NewReaderWriterLock returns a lock with that name. See [NewLock].
func NewReaderWriterLock(s *Session, name string) *ReaderWriterLock {
	return &ReaderWriterLock{newHandle(s, name)}
}

// AcquireReadLock acquires the lock for reading, which it may share with other readers. Otherwise
// it behaves like [Lock.Acquire].
func (l *ReaderWriterLock) AcquireReadLock(ctx context.Context) error {
	return l.handle.Acquire(ctx, lease.Shared)
}

// AcquireWriteLock acquires the lock for writing. Otherwise it behaves like [Lock.Acquire].
func (l *ReaderWriterLock) AcquireWriteLock(ctx context.Context) error {
	return l.handle.Acquire(ctx, lease.Exclusive)
}

// TryAcquireReadLock acquires the lock for reading if no writer holds it or waits for it.
// Otherwise it behaves like [Lock.TryAcquire].
func (l *ReaderWriterLock) TryAcquireReadLock(ctx context.Context) (bool, error) {
	return l.handle.TryAcquire(ctx, lease.Shared)
}

// TryAcquireWriteLock acquires the lock for writing. Otherwise it behaves like [Lock.TryAcquire].
func (l *ReaderWriterLock) TryAcquireWriteLock(ctx context.Context) (bool, error) {
	return l.handle.TryAcquire(ctx, lease.Exclusive)
}

// ReleaseReadLock releases a read lock: of several that were acquired through l, one that has no
// context, and of these one that is known to be lost, if there is one. Otherwise it behaves like
// [Lock.Release]. If it returns nil, no writer had the lock while it was held.
func (l *ReaderWriterLock) ReleaseReadLock() error { return l.handle.Release(lease.Shared) }

// ReleaseWriteLock releases a write lock. Otherwise it behaves like [Lock.Release].
func (l *ReaderWriterLock) ReleaseWriteLock() error { return l.handle.Release(lease.Exclusive) }

// Name returns the name that the lock was made with.
func (l *ReaderWriterLock) Name() string { return l.handle.Name }

// HoldRead acquires the lock for reading, for a [fasteners.ContextReaderWriterLocker]. See
// [Lock.Hold].
func (l *ReaderWriterLock) HoldRead(ctx context.Context) (held context.Context, release func() error, err error) {
	return watched(l.handle.Hold(ctx, lease.Shared))
}

// HoldWrite acquires the lock for writing. Otherwise it behaves like [ReaderWriterLock.HoldRead].
func (l *ReaderWriterLock) HoldWrite(ctx context.Context) (held context.Context, release func() error, err error) {
	return watched(l.handle.Hold(ctx, lease.Exclusive))
}
