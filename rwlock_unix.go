//go:build unix

package fasteners

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners/internal/fcntl"
	"github.com/go-fasteners/fasteners/internal/table"
	"github.com/go-fasteners/fasteners/internal/tag"
)

// What a process locks is described in docs/protocol.md. Every holder locks main, which begins at 0 and
// tells who it is by its length. A writer that waits for readers locks pending, as with SQLite's PENDING
// byte: a reader locks the whole file at first, which it cannot while pending is locked, and then leaves
// all of it but main.
//
// Python's fasteners, and other programs that lock the whole file, lock both. Over its readers a writer
// of ours has no preference.
const mainBase = 1 << 62 // the length of main without a tag

var pendingRange = fcntl.Range{Start: mainBase + int64(tag.Max) - 1, Len: 0} // the last two bytes

// A file is an open lock file.
type file struct {
	fcntl.Descriptor
	modes table.Mode // that it permits

	// plain is for file systems where locks of one descriptor exclude each other. There main is the whole
	// file, for readers and writers, and nobody locks pending.
	plain bool

	length  int64 // of main when it was locked last
	pending bool  // is locked
}

// chooseMain sets the length of main for a lock that is taken now.
func (f *file) chooseMain() fcntl.Range {
	f.length = 0
	if !f.plain {
		f.length = mainBase + int64(tag.New())
	}
	return f.main()
}

func (f *file) main() fcntl.Range { return fcntl.Range{Start: 0, Len: f.length} }

func (f *file) Permits(mode table.Mode) bool { return f.modes&mode != 0 }

func (f *file) TryLock(mode table.Mode) (bool, error) {
	if mode == table.Exclusive {
		ok, err := f.Descriptor.TryLock(unix.F_WRLCK, f.chooseMain())
		return ok, retryIfStale(err)
	}
	ok, err := f.Descriptor.TryLock(unix.F_RDLCK, fcntl.Whole)
	if ok {
		err = f.leaveAllButMain()
	}
	return ok && err == nil, retryIfStale(err)
}

func (f *file) Wait(ctx context.Context, mode table.Mode) error {
	if mode == table.Shared {
		err := f.Descriptor.Wait(ctx, unix.F_RDLCK, fcntl.Whole)
		if err == nil {
			err = f.leaveAllButMain()
		}
		return retryIfStale(err)
	}
	err := f.Descriptor.Wait(ctx, unix.F_WRLCK, f.chooseMain())
	if err == nil {
		f.extendMain()
	}
	return retryIfStale(err)
}

// leaveAllButMain is for a reader that has locked the whole file.
func (f *file) leaveAllButMain() error {
	main := f.chooseMain()
	if f.plain {
		return nil
	}
	return f.Descriptor.Unlock(fcntl.Range{Start: main.Len, Len: 0})
}

// extendMain is for a writer that has waited: its tag tells when it began to. The time is in the high
// bits of a tag, so main gets longer. Who holds the lock is only a hint, so it does no harm if this
// fails.
func (f *file) extendMain() {
	waited := f.length
	if main := f.chooseMain(); main.Len > waited {
		if ok, err := f.Descriptor.TryLock(unix.F_WRLCK, main); ok && err == nil {
			return
		}
	}
	f.length = waited
}

func (f *file) LockPending() error {
	if f.pending || f.plain {
		return nil
	}
	holder, err := f.Conflict(unix.F_WRLCK, fcntl.Range{Start: 0, Len: 1})
	if err != nil || holder.Type != unix.F_RDLCK {
		return retryIfStale(err)
	}
	f.pending, err = f.Descriptor.TryLock(unix.F_WRLCK, pendingRange)
	return retryIfStale(err)
}

func (f *file) Pending() (bool, error) {
	writer, err := f.Conflict(unix.F_RDLCK, pendingRange)
	return writer.Type == unix.F_WRLCK, retryIfStale(err)
}

// Downgrade unlocks pending first: if that fails, nothing has changed. To convert a lock is one step
// (POSIX, fcntl: F_SETLK "shall ... replace" it).
func (f *file) Downgrade() error {
	if f.pending {
		if err := f.Descriptor.Unlock(pendingRange); err != nil {
			return err
		}
		f.pending = false
	}
	ok, err := f.Descriptor.TryLock(unix.F_RDLCK, f.main())
	if !ok && err == nil {
		err = unix.EAGAIN // SMB
	}
	return err
}

func (f *file) Unlock() error {
	err := f.Descriptor.Unlock(fcntl.Whole)
	if err == nil {
		f.pending = false
	}
	return err
}
