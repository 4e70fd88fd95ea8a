package fasteners

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/windows"

	"github.com/go-fasteners/fasteners/internal/event"
	"github.com/go-fasteners/fasteners/internal/table"
)

// What a process locks is described in docs/protocol.md. Every holder locks the main byte, as Python's
// fasteners does. The file need not have that byte, and must not get it from us: the exclusive lock of
// fasteners is on the byte behind the last one.
//
// A writer that waits for readers has locked the pending byte, which our readers look at. It does not
// keep writers out.
const (
	mainByte    = 0
	pendingByte = 1 << 62
)

func lockFlags(mode table.Mode) uint32 {
	if mode == table.Shared {
		return 0
	}
	return windows.LOCKFILE_EXCLUSIVE_LOCK
}

func (f *file) TryLock(mode table.Mode) (bool, error) {
	if mode == table.Shared {
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

// Wait is not possible here. LockFileEx can be canceled only on an overlapped handle, and may have locked
// the file by then; Wine 8 never completes it there (seen 2026-11-23).
func (f *file) Wait(context.Context, table.Mode) error { return errors.ErrUnsupported }

func (f *file) LockPending() error {
	if f.pending {
		return nil
	}
	ok, err := f.tryLockByte(pendingByte, table.Exclusive)
	if !ok || err != nil {
		return err
	}
	f.pending = true

	// Nothing tells who holds the lock. But beside readers another one can hold it for a moment.
	readers, err := f.tryLockByte(mainByte, table.Shared)
	if !readers || err != nil {
		// Readers may have found pending locked, and the writer that holds the lock may release it.
		f.pending = false
		if unlockErr := f.unlock(pendingByte); err == nil {
			err = unlockErr
		}
		event.Signal(eventName(f.id, table.Shared))
		return err
	}
	err = f.unlock(mainByte)
	// Another writer may have found the lock held though it was free but for us. This happens once for
	// each wait, so two writers do not wake each other forever.
	event.Signal(eventName(f.id, table.Exclusive))
	return err
}

// Pending looks whether a reader could lock the pending byte.
func (f *file) Pending() (bool, error) {
	ok, err := f.tryLockByte(pendingByte, table.Shared)
	if !ok || err != nil {
		return err == nil, err
	}
	return false, f.unlock(pendingByte)
}

// Downgrade has both locks for a moment. The first unlock of a byte frees the exclusive one
// (UnlockFileEx).
func (f *file) Downgrade() error {
	if f.pending {
		if err := f.unlock(pendingByte); err != nil {
			return err
		}
		f.pending = false
	}
	ok, err := f.tryLockByte(mainByte, table.Shared)
	if err != nil {
		return err
	}
	if !ok {
		return windows.ERROR_LOCK_VIOLATION // not as documented
	}
	if err := f.unlock(mainByte); err != nil {
		f.locks++
		return err
	}
	event.Signal(eventName(f.id, table.Shared))
	return nil
}

func (f *file) Unlock() error {
	if f.locks == 0 && !f.pending {
		return nil // to unlock what is not locked is an error
	}
	var err error
	for ; f.locks > 0; f.locks-- {
		err = errors.Join(err, f.unlock(mainByte))
	}
	if f.pending {
		f.pending = false
		err = errors.Join(err, f.unlock(pendingByte))
	}
	event.Signal(eventName(f.id, table.Exclusive))
	event.Signal(eventName(f.id, table.Shared))
	return err
}

// tryLockByte locks the byte at offset if that can be done at once. One lock of a handle does not exclude
// another one of it if that is shared, but adds up with it.
func (f *file) tryLockByte(offset uint64, mode table.Mode) (bool, error) {
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

// eventName returns the name of the event that wakes one of those who wait for the file in mode. Readers
// have their own: otherwise a writer that cannot lock the file yet could take the wake-up that one reader
// passes to the next.
//
// The name is of the session, Local: no user who has another session can take it. Processes of other
// sessions have to poll.
func eventName(id table.ID, mode table.Mode) string {
	return fmt.Sprintf(`Local\fasteners-%x-%x-%v`, id.Volume, id.File, mode)
}
