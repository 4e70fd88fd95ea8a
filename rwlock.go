package fasteners

import (
	"context"
	"os"

	"github.com/go-fasteners/fasteners/internal/locktable"
)

// An InterProcessReaderWriterLock is a lock that either one writer or any number of readers
// hold at a time. Holders are goroutines, of this and of other processes, through this value
// and others.
//
// It may be used by any number of goroutines, and must not be copied. It is not reentrant: as
// with a [sync.RWMutex], a reader that acquires it again can wait for a writer that waits for
// that reader. A read lock cannot be upgraded to a write lock. When the process exits, for
// whatever reason, the operating system releases the lock.
//
// Within a process, readers and writers are served in order of arrival. A writer that waits for
// readers keeps new readers from acquiring the lock, in every process: see
// [WithReaderPreference].
type InterProcessReaderWriterLock struct{ handle }

// NewInterProcessReaderWriterLock returns a lock on the file that path names: see
// [NewInterProcessLock].
func NewInterProcessReaderWriterLock(path string, opts ...Option) *InterProcessReaderWriterLock {
	l := new(InterProcessReaderWriterLock)
	l.init(path, opts)
	return l
}

// AcquireReadLock acquires the lock for reading, which it may share with other readers.
// Permission to read the lock file suffices. Otherwise it behaves like
// [InterProcessLock.Acquire].
func (l *InterProcessReaderWriterLock) AcquireReadLock(ctx context.Context) error {
	return l.acquire(ctx, locktable.Shared, nil)
}

// TryAcquireReadLock acquires the lock for reading without waiting and reports whether it
// succeeded. It returns false and a nil error if a writer holds the lock, or waits for it.
func (l *InterProcessReaderWriterLock) TryAcquireReadLock() (bool, error) {
	return l.tryAcquire(locktable.Shared)
}

// ReleaseReadLock releases one read lock. It returns the same errors as [InterProcessLock.Release].
func (l *InterProcessReaderWriterLock) ReleaseReadLock() error {
	return l.release(l.take(locktable.Shared))
}

// AcquireWriteLock acquires the lock for writing. It behaves like [InterProcessLock.Acquire].
func (l *InterProcessReaderWriterLock) AcquireWriteLock(ctx context.Context) error {
	return l.acquire(ctx, locktable.Exclusive, nil)
}

// TryAcquireWriteLock acquires the lock for writing without waiting and reports whether it
// succeeded. It behaves like [InterProcessLock.TryAcquire].
func (l *InterProcessReaderWriterLock) TryAcquireWriteLock() (bool, error) {
	return l.tryAcquire(locktable.Exclusive)
}

// ReleaseWriteLock releases the write lock. It returns the same errors as
// [InterProcessLock.Release].
func (l *InterProcessReaderWriterLock) ReleaseWriteLock() error {
	return l.release(l.take(locktable.Exclusive))
}

// HoldRead acquires the lock for reading, for a [ContextReaderWriterLocker].
func (l *InterProcessReaderWriterLock) HoldRead(
	ctx context.Context,
) (held context.Context, release func() error, err error) {
	return l.hold(ctx, locktable.Shared)
}

// HoldWrite acquires the lock for writing, for a [ContextReaderWriterLocker].
func (l *InterProcessReaderWriterLock) HoldWrite(
	ctx context.Context,
) (held context.Context, release func() error, err error) {
	return l.hold(ctx, locktable.Exclusive)
}

// Downgrade converts the write lock that was acquired through l to a read lock, to be released
// by ReleaseReadLock, or by what releases the write lock if that is [WithWriteLock] or the
// function that HoldWrite has returned. No other writer can acquire the lock in between.
// Waiting readers that arrived before any waiting writer of this process acquire it, too.
//
// Its error wraps [ErrNotAcquired] if the write lock was not held. With any other error, which
// is one of the operating system, the write lock is still held. On Linux, Downgrade always
// fails on SMB shares.
func (l *InterProcessReaderWriterLock) Downgrade() error {
	err := l.downgrade()
	l.log("downgrade", err)
	return l.pathError("downgrade", err)
}

func (l *InterProcessReaderWriterLock) downgrade() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := l.findLocked(locktable.Exclusive)
	if i < 0 {
		return ErrNotAcquired
	}
	err := l.holds[i].Downgrade()
	if err == nil {
		l.holds[i].mode = locktable.Shared
	}
	return err
}

// Holders returns the processes that hold the lock or wait for it, like [InterProcessLock.Holders].
func (l *InterProcessReaderWriterLock) Holders() ([]Holder, error) {
	return l.holders(context.Background(), true)
}

// File returns a duplicate of the descriptor that the lock is held through, as a reader or as a
// writer, like [InterProcessLock.File].
func (l *InterProcessReaderWriterLock) File() (*os.File, error) {
	return l.file()
}

// Exists reports whether the lock file exists. That says nothing about whether the lock is
// held: the file stays when the lock is released.
func (l *InterProcessReaderWriterLock) Exists() bool { return l.exists() }

// Path returns the path that the lock was made with.
func (l *InterProcessReaderWriterLock) Path() string { return l.path() }
