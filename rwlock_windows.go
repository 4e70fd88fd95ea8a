package fasteners

import (
	"golang.org/x/sys/windows"

	"github.com/go-fasteners/fasteners/internal/event"
	"github.com/go-fasteners/fasteners/internal/locktable"
)

// A writer that waits for readers locks the pending byte, and readers of this package check it
// before they lock the main byte. It does not exclude writers.
const pendingByte = 1 << 62

func (f *file) LockPending() error {
	if f.pending {
		return nil
	}
	ok, err := f.tryLockByte(pendingByte, locktable.Exclusive)
	if !ok || err != nil {
		return err
	}
	f.pending = true

	// The system does not tell who holds the lock. But if readers do, another one can lock it
	// for a moment.
	readers, err := f.tryLockByte(mainByte, locktable.Shared)
	if !readers || err != nil {
		// A writer holds the lock. By now it may have released it, to readers that found
		// pending locked.
		f.pending = false
		if unlockErr := f.unlock(pendingByte); err == nil {
			err = unlockErr
		}
		event.Signal(eventName(f.id, locktable.Shared))
		return err
	}
	err = f.unlock(mainByte)
	// Another writer may have found main locked, though only by us. This happens once for each
	// wait, so two writers do not wake each other forever.
	event.Signal(eventName(f.id, locktable.Exclusive))
	return err
}

// Pending tries to lock the pending byte as a reader.
func (f *file) Pending() (bool, error) {
	ok, err := f.tryLockByte(pendingByte, locktable.Shared)
	if !ok || err != nil {
		return err == nil, err
	}
	return false, f.unlock(pendingByte)
}

// Downgrade has both locks for a moment. The first unlock of a byte removes the exclusive one
// (UnlockFileEx).
func (f *file) Downgrade() error {
	if f.pending {
		if err := f.unlock(pendingByte); err != nil {
			return err
		}
		f.pending = false
	}
	ok, err := f.tryLockByte(mainByte, locktable.Shared)
	if err != nil {
		return err
	}
	if !ok {
		return windows.ERROR_LOCK_VIOLATION // against the documentation
	}
	if err := f.unlock(mainByte); err != nil {
		f.locks++
		return err
	}
	event.Signal(eventName(f.id, locktable.Shared))
	return nil
}
