package postgres

import (
	"context"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/lease"
)

var (
	_ fasteners.ReaderWriterLocker        = (*ReaderWriterLock)(nil)
	_ fasteners.ContextReaderWriterLocker = (*ReaderWriterLock)(nil)
)

// A ReaderWriterLock is a lock that either one writer or any number of readers
// hold at a time. Holders are goroutines, of this and of other processes,
// through this value and others.
//
// It may be used by any number of goroutines, and must not be copied. It is not
// reentrant. A read lock cannot be upgraded to a write lock. Readers and
// writers are served in order of arrival, and consecutive readers together: a
// writer that waits for readers keeps new readers waiting.
type ReaderWriterLock struct{ handle lease.Handle[*hold] }

// NewReaderWriterLock returns a lock on a name: see [NewLock].
func NewReaderWriterLock(db *DB, name string) *ReaderWriterLock {
	return &ReaderWriterLock{newHandle(db, name)}
}

// AcquireReadLock acquires the lock for reading, which it may share with other
// readers. Otherwise it behaves like [Lock.Acquire].
func (l *ReaderWriterLock) AcquireReadLock(ctx context.Context) error {
	return l.handle.Acquire(ctx, lease.Shared)
}

// TryAcquireReadLock acquires the lock for reading without waiting and reports
// whether it succeeded. It returns false and a nil error if a writer holds the
// lock, or waits for it. Otherwise it behaves like [Lock.TryAcquire].
func (l *ReaderWriterLock) TryAcquireReadLock(ctx context.Context) (bool, error) {
	return l.handle.TryAcquire(ctx, lease.Shared)
}

// ReleaseReadLock releases one read lock. It returns the same errors as
// [Lock.Release].
func (l *ReaderWriterLock) ReleaseReadLock() error { return l.handle.Release(lease.Shared) }

// AcquireWriteLock acquires the lock for writing. It behaves like
// [Lock.Acquire].
func (l *ReaderWriterLock) AcquireWriteLock(ctx context.Context) error {
	return l.handle.Acquire(ctx, lease.Exclusive)
}

// TryAcquireWriteLock acquires the lock for writing without waiting and reports
// whether it succeeded. It behaves like [Lock.TryAcquire].
func (l *ReaderWriterLock) TryAcquireWriteLock(ctx context.Context) (bool, error) {
	return l.handle.TryAcquire(ctx, lease.Exclusive)
}

// ReleaseWriteLock releases the write lock. It returns the same errors as
// [Lock.Release].
func (l *ReaderWriterLock) ReleaseWriteLock() error { return l.handle.Release(lease.Exclusive) }

// Name returns the name that the lock was made with.
func (l *ReaderWriterLock) Name() string { return l.handle.Name }

// HoldRead acquires the lock for reading, for a
// [fasteners.ContextReaderWriterLocker]. Readers that share the lock may have
// the same token. Otherwise it behaves like [Lock.Hold].
func (l *ReaderWriterLock) HoldRead(ctx context.Context) (held context.Context, release func() error, err error) {
	return l.handle.Hold(ctx, lease.Shared)
}

// HoldWrite acquires the lock for writing, for a
// [fasteners.ContextReaderWriterLocker]. It behaves like [Lock.Hold].
func (l *ReaderWriterLock) HoldWrite(ctx context.Context) (held context.Context, release func() error, err error) {
	return l.handle.Hold(ctx, lease.Exclusive)
}
