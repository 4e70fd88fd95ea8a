package fasteners

import (
	"context"
	"sync"

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
// In a process, readers and writers are served in order of arrival.
type InterProcessReaderWriterLock struct {
	handle

	mu sync.Mutex // protects what follows
	// readers has the read locks, oldest first. They can be on different files, if
	// the lock file was replaced in between.
	readers []table.Hold
	writer  table.Hold
	writing bool
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
	hold, err := l.acquire(ctx, table.Shared)
	if err == nil {
		l.addReader(hold)
	}
	return err
}

// TryAcquireReadLock acquires the lock as a reader if no writer holds it or waits for it
// in this process, and reports whether it has. The error is as that of
// [InterProcessLock.Acquire].
func (l *InterProcessReaderWriterLock) TryAcquireReadLock() (bool, error) {
	hold, ok, err := l.try(table.Shared)
	if ok {
		l.addReader(hold)
	}
	return ok, err
}

func (l *InterProcessReaderWriterLock) addReader(hold table.Hold) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.readers = append(l.readers, hold)
}

// ReleaseReadLock gives back one read lock that was acquired through l. Its error is as
// that of [InterProcessLock.Release].
func (l *InterProcessReaderWriterLock) ReleaseReadLock() error {
	l.mu.Lock()
	if len(l.readers) == 0 {
		l.mu.Unlock()
		return l.fail("release", ErrNotAcquired)
	}
	// Readers are not told apart. When some are on a file that was replaced since,
	// the oldest goes first: then as many holds on the new file stay as there can be
	// readers who rely on it.
	hold := l.readers[0]
	l.readers = append(l.readers[:0], l.readers[1:]...)
	l.mu.Unlock()
	return l.release(hold)
}

// AcquireWriteLock waits until it has the lock alone, or ctx is done. In all else it is
// as [InterProcessLock.Acquire].
func (l *InterProcessReaderWriterLock) AcquireWriteLock(ctx context.Context) error {
	hold, err := l.acquire(ctx, table.Exclusive)
	if err == nil {
		l.setWriter(hold)
	}
	return err
}

// TryAcquireWriteLock acquires the lock as a writer if nobody holds it or waits for it in
// this process, and reports whether it has. The error is as that of
// [InterProcessLock.Acquire].
func (l *InterProcessReaderWriterLock) TryAcquireWriteLock() (bool, error) {
	hold, ok, err := l.try(table.Exclusive)
	if ok {
		l.setWriter(hold)
	}
	return ok, err
}

func (l *InterProcessReaderWriterLock) setWriter(hold table.Hold) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writer, l.writing = hold, true
}

// ReleaseWriteLock gives back the write lock that was acquired through l. Its error is as
// that of [InterProcessLock.Release].
func (l *InterProcessReaderWriterLock) ReleaseWriteLock() error {
	l.mu.Lock()
	hold, writing := l.writer, l.writing
	l.writer, l.writing = table.Hold{}, false
	l.mu.Unlock()
	if !writing {
		return l.fail("release", ErrNotAcquired)
	}
	return l.release(hold)
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
	if !l.writing {
		return l.fail("downgrade", ErrNotAcquired)
	}
	if err := l.writer.Downgrade(); err != nil {
		return l.fail("downgrade", err)
	}
	l.readers = append(l.readers, l.writer)
	l.writer, l.writing = table.Hold{}, false
	return nil
}
