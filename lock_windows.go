package fasteners

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/windows"

	"github.com/go-fasteners/fasteners/internal/event"
	"github.com/go-fasteners/fasteners/internal/lockfile"
	"github.com/go-fasteners/fasteners/internal/locktable"
)

// idleTimeout is 0: an open handle would keep users from removing the directory of a lock file that
// nobody holds.
const idleTimeout = 0

// A file is an open lock file. docs/protocol.md describes what is locked: every holder locks
// the main byte, as Python's fasteners does. The file need not have that byte, and must not get
// it from us: the exclusive lock of fasteners is on the byte behind the last one. Pending is in
// rwlock_windows.go.
type file struct {
	handle windows.Handle
	modes  locktable.Mode // that it permits
	id     locktable.ID

	locks   int  // on the main byte
	pending bool // the pending byte is locked
}

const mainByte = 0

func newFile(f lockfile.File) *file { return &file{handle: f.Handle, modes: f.Modes, id: f.ID} }

func openGiven(*os.File, locktable.Mode) (locktable.File, locktable.ID, error) {
	return nil, locktable.ID{}, errOwnedByProcess
}

func (f *file) Permits(mode locktable.Mode) bool { return f.modes&mode != 0 }

func (f *file) TryLock(mode locktable.Mode) (bool, error) {
	if mode == locktable.Shared {
		pending, err := f.Pending()
		if pending || err != nil {
			return false, err
		}
	}
	ok, err := f.tryLockByte(mainByte, mode)
	if ok {
		f.locks++
	}
	return ok, err
}

func (f *file) CanWait() bool { return false }

// Wait is not supported. LockFileEx can be canceled only on an overlapped handle, and may have
// locked the file by then; Wine 8 never completes it there (seen 2026-11-23).
func (f *file) Wait(context.Context, locktable.Mode) error { return errors.ErrUnsupported }

func (f *file) Unlock() error {
	if f.locks == 0 && !f.pending {
		return nil // UnlockFileEx fails if there is no lock
	}
	var err error
	for ; f.locks > 0; f.locks-- {
		err = errors.Join(err, f.unlock(mainByte))
	}
	if f.pending {
		f.pending = false
		err = errors.Join(err, f.unlock(pendingByte))
	}
	event.Signal(eventName(f.id, locktable.Exclusive))
	event.Signal(eventName(f.id, locktable.Shared))
	return err
}

func (*file) Duplicate() (*os.File, error) { return nil, errOwnedByProcess }

func (f *file) Close() error { return windows.CloseHandle(f.handle) }

// tryLockByte locks the byte at offset if no other handle prevents it. A handle can have
// several locks on one byte if the later ones are shared, and has to unlock each of them.
func (f *file) tryLockByte(offset uint64, mode locktable.Mode) (bool, error) {
	err := windows.LockFileEx(f.handle, lockFlags(mode)|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, at(offset))
	if err == windows.ERROR_LOCK_VIOLATION {
		return false, nil
	}
	return err == nil, err
}

func (f *file) unlock(offset uint64) error {
	return windows.UnlockFileEx(f.handle, 0, 1, 0, at(offset))
}

func at(offset uint64) *windows.Overlapped {
	return &windows.Overlapped{Offset: uint32(offset), OffsetHigh: uint32(offset >> 32)}
}

func lockFlags(mode locktable.Mode) uint32 {
	if mode == locktable.Shared {
		return 0
	}
	return windows.LOCKFILE_EXCLUSIVE_LOCK
}

// Watch passes a wake-up on if the caller stops without having locked the file: that wake-up
// was meant for one of all those that wait in its mode. A reader passes it on in any case,
// since readers can hold the lock together.
func (*system) Watch(id locktable.ID, mode locktable.Mode) (released <-chan struct{}, stop func(locked bool)) {
	name := eventName(id, mode)
	w := event.New(name)
	return w.C, func(locked bool) {
		if woken := w.Stop(); woken && (!locked || mode == locktable.Shared) {
			event.Signal(name)
		}
	}
}

func (*system) Sleep(d time.Duration) { time.Sleep(d) }

// eventName returns the name of the event that wakes one of the processes that wait for the
// file in mode. Readers have their own event: otherwise a writer that cannot lock the file yet
// could take the wake-up that one reader passes on to the next.
//
// The name belongs to the session ("Local"), so that users of other sessions cannot claim it.
// Processes of other sessions have to poll.
func eventName(id locktable.ID, mode locktable.Mode) string {
	return fmt.Sprintf(`Local\fasteners-%x-%x-%v`, id.Volume, id.File, mode)
}
