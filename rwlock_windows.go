package fasteners

import (
	"fmt"

	"golang.org/x/sys/windows"

	"github.com/go-fasteners/fasteners/internal/table"
	"github.com/go-fasteners/fasteners/internal/wake"
)

// Who is inside has locked the room, one byte, as with Python's fasteners. The file need not
// have that byte, and must not get it from us: the exclusive lock of fasteners is on the byte
// behind the last one.
//
// A writer that waits for readers to leave has locked the gate, through which our readers go.
// It is not in the way of writers.
const (
	room = 0
	gate = 1 << 62
)

func lockFlags(mode table.Mode) uint32 {
	if mode == table.Shared {
		return 0
	}
	return windows.LOCKFILE_EXCLUSIVE_LOCK
}

// waitAtGate is Wait for readers. A reader that stays at the gate until it gets in keeps the
// next writer from being served before it. That can be had only here: one that waits in the
// kernel keeps others out anyway when it is stopped.
func (f *file) waitAtGate() (bool, error) {
	ok, err := f.lock(gate, 0)
	if !ok || err != nil {
		return ok, err
	}
	ok, err = f.enter(table.Shared, 0)
	if gateErr := f.unlock(gate); err == nil {
		err = gateErr
	}
	return ok && err == nil, err
}

// Gate leaves the gate alone while a writer is inside, for the reason that it has elsewhere:
// who waits can be stopped, and would then keep everybody out.
func (f *file) Gate(block bool) error {
	if f.gated {
		return nil
	}
	flags := uint32(windows.LOCKFILE_EXCLUSIVE_LOCK)
	if !block {
		flags |= windows.LOCKFILE_FAIL_IMMEDIATELY
	}
	ok, err := f.lock(gate, flags)
	if !ok || err != nil {
		return err
	}
	f.gated = true
	if block {
		return nil
	}

	// Nothing tells who is inside, but beside readers there is room for one more.
	readers, err := f.lock(room, windows.LOCKFILE_FAIL_IMMEDIATELY)
	if !readers || err != nil {
		// Readers may have found the gate locked; the writer inside may be gone.
		f.gated = false
		if gateErr := f.unlock(gate); err == nil {
			err = gateErr
		}
		wake.Signal(eventName(f.id, table.Shared))
		return err
	}
	err = f.unlock(room)
	// And another writer may have found the room locked, when it was free but for us. As
	// this happens once, we do not wake each other for ever.
	wake.Signal(eventName(f.id, table.Exclusive))
	return err
}

// Gated looks whether there is a way through the gate. Many may look at the same time.
func (f *file) Gated() (bool, error) {
	ok, err := f.lock(gate, windows.LOCKFILE_FAIL_IMMEDIATELY)
	if !ok || err != nil {
		return err == nil, err
	}
	return false, f.unlock(gate)
}

// Downgrade has both locks for a moment. The first unlock of a byte lets go of the exclusive
// one (UnlockFileEx).
func (f *file) Downgrade() error {
	ok, err := f.enter(table.Shared, windows.LOCKFILE_FAIL_IMMEDIATELY)
	if err != nil {
		return err
	}
	if !ok {
		return windows.ERROR_LOCK_VIOLATION // not as documented
	}
	if err := f.unlock(room); err != nil {
		return err
	}
	f.locks--
	f.mode = table.Shared
	if f.gated {
		f.gated = false
		err = f.unlock(gate)
	}
	wake.Signal(eventName(f.id, table.Shared))
	return err
}

// eventName returns the name of the event that wakes one of those who wait for the file
// in mode. Readers have their own, or else a writer who cannot get in would take the
// wake-up that one reader passes to the next.
//
// It is of the session, Local: no name there can be taken by another user who has a
// session of his own. In other sessions one finds out by trying.
func eventName(id table.ID, mode table.Mode) string {
	return fmt.Sprintf(`Local\fasteners-%x-%x-%v`, id.Volume, id.File, mode)
}
