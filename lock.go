package fasteners

import (
	"context"
	"os"

	"github.com/go-fasteners/fasteners/internal/locktable"
)

// An InterProcessLock is an exclusive lock: one goroutine of one process holds it at a time. It
// excludes both readers and writers of an [InterProcessReaderWriterLock] on the same file.
//
// It may be used by any number of goroutines, and must not be copied. It is not reentrant. When the
// process exits, for whatever reason, the operating system releases the lock.
//
// It does not implement [sync.Locker], because acquiring it can fail.
type InterProcessLock struct{ handle }

// NewInterProcessLock returns a lock on the file that path names. It opens and creates nothing:
// the path and the options are checked when the lock is acquired.
//
// A relative path is resolved whenever the lock is acquired or released. Do not change the current
// directory in between.
func NewInterProcessLock(path string, opts ...Option) *InterProcessLock {
	l := new(InterProcessLock)
	l.init(path, opts)
	return l
}

// Acquire acquires the lock, waiting until it is available or ctx is done. If ctx is already done,
// Acquire fails even if the lock is free.
//
// If Acquire returns nil, the path names the locked file, and no other goroutine or process
// acquires the lock before [InterProcessLock.Release]. Otherwise it returns an [*fs.PathError],
// and the lock is not held. The error wraps ctx.Err(), the error of the operating system, or
// [fs.ErrInvalid] if the path or an option is invalid.
func (l *InterProcessLock) Acquire(ctx context.Context) error {
	return l.acquire(ctx, locktable.Exclusive, nil)
}

// TryAcquire acquires the lock without waiting and reports whether it succeeded. It returns
// false and a nil error if the lock is held, or if a goroutine of this process is waiting for
// it.
func (l *InterProcessLock) TryAcquire() (bool, error) {
	return l.tryAcquire(locktable.Exclusive)
}

// Release releases the lock, which this or another goroutine acquired through l.
//
// Its error wraps [ErrNotAcquired] if the lock was not held, and [ErrReplaced] if it was
// released but its file had been removed or replaced. Whatever the error, the lock is no longer
// held.
func (l *InterProcessLock) Release() error { return l.release(l.take(locktable.Exclusive)) }

// Hold acquires the lock for a [ContextLocker].
func (l *InterProcessLock) Hold(
	ctx context.Context,
) (held context.Context, release func() error, err error) {
	return l.hold(ctx, locktable.Exclusive)
}

// Acquired reports whether the lock is held through l. The result may be stale by the time it
// is returned if other goroutines use l.
func (l *InterProcessLock) Acquired() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.holds) > 0
}

// Holders returns the processes that hold the lock or wait for it: first the holders, then
// those that wait, among them all goroutines of this process. All that it tells is a hint,
// which may be out of date when it is returned. On POSIX systems, nobody holds the lock if
// there is no Holder that is not Waiting.
//
// On Linux these are all holders in processes of this machine, and the writers that wait in the
// kernel; of the readers that wait there it does not know the PID. It looks at the descriptors
// of other processes, once, only if nothing else tells who holds the lock. On other POSIX
// systems it returns only one of several readers, and no process that waits. On Windows it
// returns the processes that have the file open, if the system tells (Wine 8 does not), and so
// it is not known whether another process holds the lock.
//
// A holder has no PID if it is not known to be the process that has that PID here and now: it
// may be a process of another machine, where the file system is not known to be local, or of
// another PID namespace; or it may have inherited the lock from a process that has ended, and
// whose PID another one may have, as far as the caller may see when that was started.
//
// Calls that are made at the same time share an answer.
func (l *InterProcessLock) Holders() ([]Holder, error) {
	return l.holders(context.Background(), true)
}

// File returns a duplicate of the descriptor that the lock is held through. A process that
// inherits it ([os/exec.Cmd.ExtraFiles]) holds the lock together with this one, even if this
// one is killed. If this process calls Release, that releases the lock for both. Otherwise the
// lock is released when both have exited or closed the file. The caller must close the
// duplicate.
//
// The error wraps [ErrNotAcquired] if the lock is not held through l, and
// [errors.ErrUnsupported] where a lock belongs to the process that has acquired it: on systems
// other than Linux, and on some file systems.
func (l *InterProcessLock) File() (*os.File, error) { return l.file() }

// Exists reports whether the lock file exists. That says nothing about whether the lock is
// held: the file stays when the lock is released.
func (l *InterProcessLock) Exists() bool { return l.exists() }

// Path returns the path that the lock was made with.
func (l *InterProcessLock) Path() string { return l.path() }
