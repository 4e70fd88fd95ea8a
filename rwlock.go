package fasteners

import (
	"context"

	"github.com/go-fasteners/fasteners/internal/table"
)

// An InterProcessReaderWriterLock is a lock on a file that either one writer or any
// number of readers hold at a time: goroutines of this process, through this value or
// others, and other processes.
//
// It may be used by any number of goroutines, and must not be copied. It is not
// reentrant: as with a [sync.RWMutex], a reader that acquires it again can wait for a
// writer who waits for that reader. A read lock cannot be upgraded to a write lock. When
// the process ends, however that happens, the operating system releases it.
//
// In a process, readers and writers are served in order of arrival. A writer that waits for
// readers of other processes keeps new readers out, of whatever process; see
// [WithReaderPreference].
type InterProcessReaderWriterLock struct {
	handle
	readers, writers holds
}

// NewInterProcessReaderWriterLock returns a lock on the file that path names. All that
// [NewInterProcessLock] says holds here too.
func NewInterProcessReaderWriterLock(path string, opts ...Option) *InterProcessReaderWriterLock {
	l := new(InterProcessReaderWriterLock)
	l.init(path, opts)
	return l
}

// AcquireReadLock waits until it has the lock together with other readers at most, or ctx
// is done. A file that may only be read can be locked so. In all else it is as
// [InterProcessLock.Acquire].
func (l *InterProcessReaderWriterLock) AcquireReadLock(ctx context.Context) error {
	return l.acquire(ctx, table.Shared, &l.readers)
}

// TryAcquireReadLock acquires the lock as a reader if no writer holds it or waits for it
// in this process, and reports whether it has. The error is as that of
// [InterProcessLock.Acquire].
func (l *InterProcessReaderWriterLock) TryAcquireReadLock() (bool, error) {
	return l.try(table.Shared, &l.readers)
}

// ReleaseReadLock gives back one read lock that was acquired through l. Its error is as
// that of [InterProcessLock.Release].
func (l *InterProcessReaderWriterLock) ReleaseReadLock() error {
	return l.release(&l.readers)
}

// AcquireWriteLock waits until it has the lock alone, or ctx is done. In all else it is
// as [InterProcessLock.Acquire].
func (l *InterProcessReaderWriterLock) AcquireWriteLock(ctx context.Context) error {
	return l.acquire(ctx, table.Exclusive, &l.writers)
}

// TryAcquireWriteLock acquires the lock as a writer if nobody holds it or waits for it in
// this process, and reports whether it has. The error is as that of
// [InterProcessLock.Acquire].
func (l *InterProcessReaderWriterLock) TryAcquireWriteLock() (bool, error) {
	return l.try(table.Exclusive, &l.writers)
}

// ReleaseWriteLock gives back the write lock that was acquired through l. Its error is as
// that of [InterProcessLock.Release].
func (l *InterProcessReaderWriterLock) ReleaseWriteLock() error {
	return l.release(&l.writers)
}

// Downgrade makes the write lock that was acquired through l a read lock, to be released by
// [InterProcessReaderWriterLock.ReleaseReadLock]. There is no instant at which another writer
// could get in. Readers that wait and came before any waiting writer of this process get in at
// once.
//
// The cause of its error is [ErrNotAcquired] if there was no write lock, or what the operating
// system says; then the write lock is still held.
func (l *InterProcessReaderWriterLock) Downgrade() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	hold, ok := l.writers.take(l.Path())
	if !ok {
		return l.fail("downgrade", ErrNotAcquired)
	}
	if err := hold.Downgrade(); err != nil {
		l.writers.add(hold)
		return l.fail("downgrade", err)
	}
	l.readers.add(hold)
	return nil
}
