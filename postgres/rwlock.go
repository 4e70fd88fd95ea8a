package postgres

import (
	"context"

	"github.com/go-fasteners/fasteners"
)

var (
	_ fasteners.ReaderWriterLocker        = (*ReaderWriterLock)(nil)
	_ fasteners.ContextReaderWriterLocker = (*ReaderWriterLock)(nil)
)

// A ReaderWriterLock is a lock that either one writer or any number of readers hold at a time. Holders are
// goroutines, of this and of other processes, through this value and others.
//
// It may be used by any number of goroutines, and must not be copied. It is not reentrant. A read lock cannot
// be upgraded to a write lock. Readers and writers are served in order of arrival, and consecutive readers
// together: a writer that waits for readers keeps new readers waiting.
type ReaderWriterLock struct {
	handle
	readers, writers holds
}

// NewReaderWriterLock returns a lock on a name: see [NewLock].
func NewReaderWriterLock(db *DB, name string) *ReaderWriterLock {
	return &ReaderWriterLock{handle: handle{db: db, name: name}}
}

// AcquireReadLock acquires the lock for reading, which it may share with other readers. Otherwise it behaves
// like [Lock.Acquire].
func (l *ReaderWriterLock) AcquireReadLock(ctx context.Context) error {
	return l.acquireTo(ctx, shared, &l.readers)
}

// TryAcquireReadLock acquires the lock for reading without waiting and reports whether it succeeded. It
// returns false and a nil error if a writer holds the lock, or waits for it. Otherwise it behaves like
// [Lock.TryAcquire].
func (l *ReaderWriterLock) TryAcquireReadLock(ctx context.Context) (bool, error) {
	return l.tryAcquireTo(ctx, shared, &l.readers)
}

// ReleaseReadLock releases one read lock. It returns the same errors as [Lock.Release].
func (l *ReaderWriterLock) ReleaseReadLock() error { return l.release(l.take(&l.readers)) }

// AcquireWriteLock acquires the lock for writing. It behaves like [Lock.Acquire].
func (l *ReaderWriterLock) AcquireWriteLock(ctx context.Context) error {
	return l.acquireTo(ctx, exclusive, &l.writers)
}

// TryAcquireWriteLock acquires the lock for writing without waiting and reports whether it succeeded. It
// behaves like [Lock.TryAcquire].
func (l *ReaderWriterLock) TryAcquireWriteLock(ctx context.Context) (bool, error) {
	return l.tryAcquireTo(ctx, exclusive, &l.writers)
}

// ReleaseWriteLock releases the write lock. It returns the same errors as [Lock.Release].
func (l *ReaderWriterLock) ReleaseWriteLock() error { return l.release(l.take(&l.writers)) }

// Name returns the name that the lock was made with.
func (l *ReaderWriterLock) Name() string { return l.name }

// HoldRead acquires the lock for reading, for a [fasteners.ContextReaderWriterLocker]. Readers that share the
// lock may have the same token. Otherwise it behaves like [Lock.Hold].
func (l *ReaderWriterLock) HoldRead(ctx context.Context) (held context.Context, release func() error, err error) {
	return l.hold(ctx, shared, &l.readers)
}

// HoldWrite acquires the lock for writing, for a [fasteners.ContextReaderWriterLocker]. It behaves like
// [Lock.Hold].
func (l *ReaderWriterLock) HoldWrite(ctx context.Context) (held context.Context, release func() error, err error) {
	return l.hold(ctx, exclusive, &l.writers)
}
