package etcd

import "context"

// A ReaderWriterLock is held by any number of readers or one writer, on any machines. A [Lock] of the
// same name counts as a writer.
//
// Readers and writers are served in order of arrival: a reader waits for the writers that came before it,
// and a writer for all. So neither starve. The lock may be used by any number of goroutines, and must not
// be copied. It is not reentrant, and a read lock cannot be upgraded.
type ReaderWriterLock struct {
	handle
	readers, writers holds
}

// NewReaderWriterLock returns a lock with that name. See [NewLock].
func NewReaderWriterLock(s *Session, name string) *ReaderWriterLock {
	return &ReaderWriterLock{handle: handle{session: s, name: name}}
}

// AcquireReadLock acquires the lock for reading, which it may share with other readers. Otherwise it
// behaves like [Lock.Acquire].
func (l *ReaderWriterLock) AcquireReadLock(ctx context.Context) error {
	return l.acquireInto(ctx, shared, &l.readers)
}

// AcquireWriteLock acquires the lock for writing. Otherwise it behaves like [Lock.Acquire].
func (l *ReaderWriterLock) AcquireWriteLock(ctx context.Context) error {
	return l.acquireInto(ctx, exclusive, &l.writers)
}

// TryAcquireReadLock acquires the lock for reading if no writer holds it or waits for it. Otherwise it
// behaves like [Lock.TryAcquire].
func (l *ReaderWriterLock) TryAcquireReadLock(ctx context.Context) (bool, error) {
	return l.tryAcquire(ctx, shared, &l.readers)
}

// TryAcquireWriteLock acquires the lock for writing. Otherwise it behaves like [Lock.TryAcquire].
func (l *ReaderWriterLock) TryAcquireWriteLock(ctx context.Context) (bool, error) {
	return l.tryAcquire(ctx, exclusive, &l.writers)
}

// ReleaseReadLock releases a read lock. Otherwise it behaves like [Lock.Release]. If it returns nil, no
// writer had the lock while it was held.
func (l *ReaderWriterLock) ReleaseReadLock() error { return l.release(l.take(&l.readers)) }

// ReleaseWriteLock releases a write lock. Otherwise it behaves like [Lock.Release].
func (l *ReaderWriterLock) ReleaseWriteLock() error { return l.release(l.take(&l.writers)) }

// AcquiredReadLock reports whether the lock is held through l for reading. Otherwise it behaves like
// [Lock.Acquired].
func (l *ReaderWriterLock) AcquiredReadLock() bool { return l.acquired(&l.readers) }

// AcquiredWriteLock reports whether the lock is held through l for writing. Otherwise it behaves like
// [Lock.Acquired].
func (l *ReaderWriterLock) AcquiredWriteLock() bool { return l.acquired(&l.writers) }

// Name returns the name that the lock was made with.
func (l *ReaderWriterLock) Name() string { return l.name }

// HoldRead acquires the lock for reading, for a [fasteners.ContextReaderWriterLocker]. See [Lock.Hold].
func (l *ReaderWriterLock) HoldRead(ctx context.Context) (held context.Context, release func() error, err error) {
	return l.acquireWithContext(ctx, shared, &l.readers)
}

// HoldWrite acquires the lock for writing. Otherwise it behaves like [ReaderWriterLock.HoldRead].
func (l *ReaderWriterLock) HoldWrite(ctx context.Context) (held context.Context, release func() error, err error) {
	return l.acquireWithContext(ctx, exclusive, &l.writers)
}
