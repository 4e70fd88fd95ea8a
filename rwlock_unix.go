//go:build unix

package fasteners

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners/internal/posix"
	"github.com/go-fasteners/fasteners/internal/tag"
)

// A writer that waits for readers locks pending, as in SQLite's file format. A reader locks the
// whole file first, which fails while pending is locked, and then unlocks all but main.
//
// Python's fasteners, and other programs that lock the whole file, lock both ranges. A writer
// of this package has no preference over their readers.
var pendingRange = posix.Range{Start: mainBase + int64(tag.Max) - 1, Len: 0} // the last two bytes

func (f *file) tryLockShared() (bool, error) {
	ok, err := f.Descriptor.TryLock(unix.F_RDLCK, posix.Whole)
	if ok {
		err = f.unlockAllButMain()
	}
	return ok && err == nil, err
}

func (f *file) waitShared(ctx context.Context) error {
	err := f.Descriptor.Wait(ctx, unix.F_RDLCK, posix.Whole)
	if err == nil {
		err = f.unlockAllButMain()
	}
	return err
}

// unlockAllButMain is called by a reader that has locked the whole file. If it fails, so does the
// acquire, whose lock is then undone. But through a descriptor that was given the whole file
// stays locked, which is no worse for others than a reader that does not tell who it is: nobody
// knows what was locked before.
func (f *file) unlockAllButMain() error {
	f.chooseMain()
	err := f.unlockBehindMain()
	if f.given {
		return nil
	}
	return err
}

func (f *file) unlockBehindMain() error {
	if f.plain {
		return nil
	}
	return f.Descriptor.Unlock(posix.Range{Start: f.length, Len: 0})
}

// LockPending does nothing through a descriptor that was given: if this process is killed, the
// kernel does not unlock pending as long as others have the descriptor, and no reader could
// acquire the lock.
//
// A reader that acquires the lock has the whole file locked for an instant, pending included.
// The next recheck can be a second away, so pending is tried again until that reader is
// through.
func (f *file) LockPending() error {
	if f.pending || f.plain || f.given {
		return nil
	}
	for range pendingTries {
		holder, err := f.Conflict(unix.F_WRLCK, posix.Range{Start: 0, Len: 1})
		if err != nil || holder.Type != unix.F_RDLCK {
			return lockError(&f.Descriptor, err)
		}
		ok, err := f.Descriptor.TryLock(unix.F_WRLCK, pendingRange)
		if ok || err != nil {
			f.pending = true // after an error nobody knows
			return lockError(&f.Descriptor, err)
		}
		other, err := f.Conflict(unix.F_WRLCK, pendingRange)
		if err != nil || other.Type == unix.F_WRLCK { // of another writer that waits
			return lockError(&f.Descriptor, err)
		}
		new(system).Sleep(pendingPause)
	}
	return nil
}

// Together these are longer than a time slice of the scheduler, for which a reader can be stopped.
const (
	pendingTries = 100
	pendingPause = 50 * time.Microsecond
)

func (f *file) Pending() (bool, error) {
	writer, err := f.Conflict(unix.F_RDLCK, pendingRange)
	return writer.Type == unix.F_WRLCK, lockError(&f.Descriptor, err)
}

// Downgrade first unlocks what is locked beside main: if that fails, main has not changed. It is
// pending, or the end of a longer main, if another process has the open file description and has
// locked it as well. Converting main is a single step (POSIX, fcntl: F_SETLK "shall ... replace"
// the lock).
func (f *file) Downgrade() error {
	if f.pending || f.given || f.lent.Load() {
		if err := f.unlockBehindMain(); err != nil {
			return lockError(&f.Descriptor, err)
		}
		f.pending = false
	}
	ok, err := f.Descriptor.TryLock(unix.F_RDLCK, f.main())
	if !ok && err == nil {
		err = unix.EAGAIN // as on SMB
	}
	return lockError(&f.Descriptor, err)
}
