//go:build unix

package fasteners

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners/internal/posix"
	"github.com/go-fasteners/fasteners/internal/table"
	"github.com/go-fasteners/fasteners/internal/tag"
)

// idleTimeout is how long the descriptor of a free lock stays open. Opening and closing a file costs more
// than locking it; but a process that uses many lock files in turn would have more of them open at once
// with a longer timeout.
const idleTimeout = time.Millisecond

// A file is an open lock file. docs/protocol.md describes what is locked: every holder locks main, a range
// that begins at 0 and whose length tells who the holder is. Readers are in rwlock_unix.go.
type file struct {
	posix.Descriptor
	modes table.Mode // that it permits

	// plain is true on file systems where locks of one descriptor exclude each other. There main is the
	// whole file, for readers and writers, and nobody locks pending.
	plain bool

	// given is true if the descriptor was opened by somebody else, who may keep the lock: see WithFile.
	given bool

	length  int64 // of main when it was last locked
	pending bool  // pending is locked
}

const mainBase = 1 << 62 // the length of main without a tag

// chooseMain sets the length of main for a lock that is taken now.
func (f *file) chooseMain() posix.Range {
	f.length = 0
	if !f.plain {
		f.length = mainBase + int64(tag.New())
	}
	return f.main()
}

func (f *file) main() posix.Range { return posix.Range{Start: 0, Len: f.length} }

func (f *file) Permits(mode table.Mode) bool { return f.modes&mode != 0 }

func (f *file) TryLock(mode table.Mode) (bool, error) {
	if mode == table.Shared {
		return f.tryLockShared()
	}
	ok, err := f.Descriptor.TryLock(unix.F_WRLCK, f.chooseMain())
	return ok, retryIfStale(err)
}

func (f *file) Wait(ctx context.Context, mode table.Mode) error {
	if mode == table.Shared {
		return f.waitShared(ctx)
	}
	err := f.Descriptor.Wait(ctx, unix.F_WRLCK, f.chooseMain())
	if err == nil {
		f.extendMain()
	}
	return retryIfStale(err)
}

// extendMain is called by a writer that has waited: its tag tells when the wait began. The time is in the
// high bits of a tag, so main only gets longer. The holder's name is no more than a hint, so a failure
// does no harm.
func (f *file) extendMain() {
	waited := f.length
	if main := f.chooseMain(); main.Len > waited {
		if ok, err := f.Descriptor.TryLock(unix.F_WRLCK, main); ok && err == nil {
			return
		}
	}
	f.length = waited
}

func (f *file) Unlock() error {
	err := f.Descriptor.Unlock(posix.Whole)
	if err == nil {
		f.pending = false
	}
	return err
}

// Duplicate does without the name of the file, which may be another one by now.
func (f *file) Duplicate() (*os.File, error) {
	if f.OwnedByProcess() {
		return nil, errOwnedByProcess
	}
	fd, err := posix.Duplicate(uintptr(f.FD))
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "lock"), nil
}

// Close does not try again after EINTR: by then the descriptor may belong to another file.
func (f *file) Close() error {
	err := unix.Close(f.FD)
	if err == unix.EINTR {
		return nil
	}
	return err
}

// Watch returns no channel: nothing reports a release to a process that polls.
func (*system) Watch(table.ID, table.Mode) (released <-chan struct{}, stop func(bool)) {
	return nil, func(bool) {}
}

// Sleep blocks a thread for that time. On Linux the runtime waits for timers in whole milliseconds (see
// BenchmarkSleep). A signal may end it early.
func (*system) Sleep(d time.Duration) {
	timeout := unix.NsecToTimeval(d.Nanoseconds())
	_, _ = unix.Select(0, nil, nil, nil, &timeout)
}
