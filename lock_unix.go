//go:build unix

package fasteners

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners/internal/lockfile"
	"github.com/go-fasteners/fasteners/internal/locktable"
	"github.com/go-fasteners/fasteners/internal/posix"
	"github.com/go-fasteners/fasteners/internal/tag"
)

// idleTimeout is how long the descriptor of a free lock stays open. Opening and closing a file
// costs more than locking it; but a process that uses many lock files in turn would have more
// of them open at once with a longer timeout.
const idleTimeout = time.Millisecond

// A file is an open lock file. docs/protocol.md describes what is locked: every holder locks
// main, a range that begins at 0 and whose length tells who the holder is. Readers are in
// rwlock_unix.go.
type file struct {
	posix.Descriptor
	modes locktable.Mode // that it permits

	// plain is true on file systems where locks of one descriptor exclude each other. There
	// main is the whole file, for readers and writers, and nobody locks pending.
	plain bool

	// given is true if the descriptor was opened by somebody else, who may keep the lock: see
	// WithFile.
	given bool

	// lent is true if others may have got the descriptor from this process: see Duplicate.
	lent atomic.Bool

	length  int64 // of main when it was last locked
	locked  bool  // main is locked, or may be; always by this file, not by others through its description
	pending bool  // pending is locked
}

const mainBase = 1 << 62 // the length of main without a tag

func newFile(f lockfile.File) *file {
	own := &file{Descriptor: posix.New(f.Handle, f.ID.Volume), modes: f.Modes}
	own.plain = own.OwnRangesConflict()
	return own
}

// chooseMain sets the length of main for a lock that is taken now.
func (f *file) chooseMain() posix.Range {
	f.length = 0
	if !f.plain {
		f.length = mainBase + int64(tag.New())
	}
	return f.main()
}

func (f *file) main() posix.Range { return posix.Range{Start: 0, Len: f.length} }

// Permits permits nothing through a descriptor that was lent, once the lock is released: others
// may lock the file through it, and this process would not notice.
func (f *file) Permits(mode locktable.Mode) bool {
	return f.modes&mode != 0 && (f.locked || !f.lent.Load())
}

func (f *file) TryLock(mode locktable.Mode) (ok bool, err error) {
	if mode == locktable.Shared {
		ok, err = f.tryLockShared()
	} else {
		ok, err = f.Descriptor.TryLock(unix.F_WRLCK, f.chooseMain())
	}
	f.note(ok, err)
	return ok, lockError(&f.Descriptor, err)
}

func (f *file) Wait(ctx context.Context, mode locktable.Mode) (err error) {
	if mode == locktable.Shared {
		err = f.waitShared(ctx)
	} else if err = f.Descriptor.Wait(ctx, unix.F_WRLCK, f.chooseMain()); err == nil {
		f.extendMain()
	}
	if err == errors.ErrUnsupported || err != nil && err == ctx.Err() {
		return err
	}
	f.note(err == nil, err)
	return lockError(&f.Descriptor, err)
}

// note notes what Unlock has to undo. After an error nobody knows what has been locked, if a
// server or a process was asked. But through a descriptor that was given others may hold the
// lock, and an error must not cost them that.
func (f *file) note(locked bool, err error) {
	if locked || err != nil && !f.given {
		f.locked = true
	}
}

// extendMain is called by a writer that has waited: its tag tells when the wait began. The time
// is in the high bits of a tag, so main only gets longer. The holder's name is no more than a
// hint, so a failure does no harm.
func (f *file) extendMain() {
	waited := f.length
	if main := f.chooseMain(); main.Len > waited {
		if ok, err := f.Descriptor.TryLock(unix.F_WRLCK, main); ok && err == nil {
			return
		}
	}
	f.length = waited
}

// Unlock unlocks all that others have locked through the same description as well, since the
// ranges of their locks differ. But if f has locked nothing, it leaves that alone.
func (f *file) Unlock() error {
	if !f.locked && !f.pending {
		return nil
	}
	err := f.Descriptor.Unlock(posix.Whole)
	if err == nil {
		f.locked, f.pending = false, false
	}
	return lockError(&f.Descriptor, err)
}

// lockError returns the error of a lock call as callers see it.
func lockError(d *posix.Descriptor, err error) error {
	if err == nil {
		return nil
	}
	switch errno, _ := err.(unix.Errno); {
	case errno == unix.EINTR:
		return fmt.Errorf("the file system interrupts the call each time: %w", err)
	case errno == unix.ENOLCK:
		// That a server does not answer is one of two reasons (fcntl(2)). The other is that there
		// is no room for another lock, and that does not keep anybody from asking for a lock.
		if _, err := d.Conflict(unix.F_WRLCK, posix.Whole); err != unix.ENOLCK || d.IsLocal() {
			return fmt.Errorf("there is no room for another lock: %w", errno)
		}
		return noLocksError{errno}
	case errno == unix.ENOTTY, errno == unix.EINVAL, errno.Is(errors.ErrUnsupported):
		return noLocksError{errno}
	}
	return lockfile.RetryIfStale(err)
}

// A noLocksError is an errno that says that files cannot be locked.
type noLocksError struct{ errno unix.Errno }

func (e noLocksError) Error() string {
	return "the file system does not support locks (put the lock file on another one): " + e.errno.Error()
}

func (e noLocksError) Unwrap() []error { return []error{e.errno, errors.ErrUnsupported} }

// Duplicate does without the name of the file, which may be another one by now.
func (f *file) Duplicate() (*os.File, error) {
	if f.OwnedByProcess() {
		return nil, errOwnedByProcess
	}
	fd, err := posix.Duplicate(uintptr(f.FD))
	if err != nil {
		return nil, err
	}
	f.lent.Store(true)
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

// openGiven returns another descriptor of the open file description of shared. It does not open
// or close any if locks belong to the process: that would drop those of other goroutines.
func openGiven(shared *os.File, mode locktable.Mode) (locktable.File, locktable.ID, error) {
	conn, err := shared.SyscallConn()
	if err != nil {
		return nil, locktable.ID{}, err
	}
	fd, modes := -1, locktable.Mode(0)
	var dupErr error
	err = conn.Control(func(original uintptr) { // Fd could make the description blocking
		fd, modes, dupErr = duplicate(original)
	})
	if err = errors.Join(err, dupErr); err != nil {
		return nil, locktable.ID{}, err
	}
	f, err := lockfile.FromDescriptor(fd, modes)
	if err != nil {
		return nil, locktable.ID{}, err
	}
	own := newFile(f)
	own.given = true
	own.KeepForm()
	if !own.Permits(mode) {
		_ = own.Close()
		return nil, locktable.ID{}, fmt.Errorf("file is not open for a lock that is %v: %w", mode, fs.ErrPermission)
	}
	return own, f.ID, nil
}

// duplicate duplicates a descriptor through which a lock does not belong to the process. It
// also returns the modes that the descriptor permits.
func duplicate(fd uintptr) (int, locktable.Mode, error) {
	d := posix.New(int(fd), 0)
	_, err := d.Conflict(unix.F_WRLCK, posix.Whole)
	if err == nil && d.OwnedByProcess() {
		err = errOwnedByProcess
	}
	if err != nil {
		return -1, 0, lockError(&d, err)
	}
	flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
	if err != nil {
		return -1, 0, err
	}
	modes := locktable.Shared | locktable.Exclusive
	switch flags & unix.O_ACCMODE {
	case unix.O_RDONLY:
		modes = locktable.Shared
	case unix.O_WRONLY:
		modes = locktable.Exclusive
	}
	own, err := posix.Duplicate(fd)
	return own, modes, err
}

// Watch returns no channel: nothing reports a release to a process that polls.
func (*system) Watch(locktable.ID, locktable.Mode) (released <-chan struct{}, stop func(bool)) {
	return nil, func(bool) {}
}

// Sleep blocks a thread for that time. On Linux the runtime waits for timers in whole
// milliseconds (see BenchmarkSleep). A signal may end it early.
func (*system) Sleep(d time.Duration) {
	timeout := unix.NsecToTimeval(d.Nanoseconds())
	_, _ = unix.Select(0, nil, nil, nil, &timeout)
}
