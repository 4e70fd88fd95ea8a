//go:build unix

package fasteners

import (
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners/internal/locktable"
	"github.com/go-fasteners/fasteners/internal/posix"
	"github.com/go-fasteners/fasteners/internal/process"
	"github.com/go-fasteners/fasteners/internal/tag"
)

func (f *file) Holder() (locktable.Holder, bool) {
	l, err := f.oneLock()
	if err != nil || l == nil {
		return locktable.Holder{}, false
	}
	return holder(*l, f.IsLocal()), true
}

// oneLock returns a lock of another owner on the first byte, which every holder locks, or nil
// if there is none.
func (f *file) oneLock() (*posix.Lock, error) {
	lk, err := f.Conflict(unix.F_WRLCK, posix.Range{Start: 0, Len: 1})
	if err != nil || lk.Type == unix.F_UNLCK {
		return nil, err
	}
	return &posix.Lock{Range: posix.Range{Start: lk.Start, Len: lk.Len}, Type: lk.Type, PID: int(lk.Pid)}, nil
}

// Holders asks for one lock on the file, and looks for that and all others in the list of the
// system.
func (*system) Holders(id locktable.ID, f locktable.File) ([]locktable.Holder, error) {
	var one *posix.Lock
	local := false
	if f, ok := f.(*file); ok {
		var err error
		if one, err = f.oneLock(); err != nil {
			return nil, err
		}
		local = f.IsLocal()
	}
	locks := posix.LocksOf(id.Volume, id.File, one)
	if one != nil && !slices.Contains(locks, *one) {
		locks = append(locks, *one) // one of a PID namespace that the list leaves out, for example
	}
	var holders []locktable.Holder
	var pids []int // of holders
	for _, l := range locks {
		if l.Start != 0 {
			continue // pending: the owner also holds main, or waits for it
		}
		h := holder(l, local)
		if h.PID != 0 && !process.Exists(h.PID) {
			h.PID = 0 // it has left the lock to a process that has inherited the descriptor
		}
		if local && h.PID == 0 && !l.Blocked {
			h.PID = posix.OwnerOf(l, id.Volume, id.File, pids)
		}
		if !l.Blocked {
			pids = append(pids, h.PID)
		}
		isSame := func(other locktable.Holder) bool {
			return h.PID != 0 && h.PID == other.PID && h.Waiting == other.Waiting
		}
		if h.PID != os.Getpid() && !slices.ContainsFunc(holders, isSame) {
			// The list can have a lock twice: for each page the kernel goes on at the same
			// index, even if another lock has been added in front.
			holders = append(holders, h)
		}
	}
	return holders, nil
}

// holder returns what is known about the owner of a lock. Only on a local file system the owner
// is a process of this machine. The kernel tells its ID in our PID namespace, but not if the
// lock belongs to an open file description; then the tag does.
func holder(l posix.Lock, local bool) locktable.Holder {
	h := locktable.Holder{Mode: locktable.Exclusive, Waiting: l.Blocked}
	if l.Type == unix.F_RDLCK {
		h.Mode = locktable.Shared
	}
	if local {
		h.PID = max(l.PID, 0)
	}
	if l.Start == 0 && l.Len >= mainBase {
		t := tag.Tag(l.Len - mainBase)
		h.Since = t.Time()
		if local && h.PID == 0 && t.SameNamespace() {
			h.PID = t.PID()
		}
	}
	return h
}
