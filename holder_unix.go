//go:build unix

package fasteners

import (
	"maps"
	"slices"
	"time"

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
	v := viewOf(f.IsLocal())
	return v.holder(*l, v.local), true
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
	known := one
	if !local {
		known = nil // it can be of another machine, and equal one on another file of this one
	}
	list, name := posix.LocksOf(id.Volume, id.File, known)
	v := viewOf(local)
	v.listed = process.AreListed()
	v.existed = process.Existed
	v.owners = func(locks []posix.Lock) (map[posix.Lock][]int, bool) {
		isFile := func(path string) bool {
			st, err := posix.Stat(path)
			return err == nil && st.Dev == id.Volume && st.Ino == id.File
		}
		if !local {
			isFile = nil // a server need not answer; the name of the file in the list has to do
		}
		return posix.Owners(locks, name, isFile)
	}
	return v.holders(list, one), nil
}

// A view is what the system tells about the owners of locks.
type view struct {
	// local is true if the file system is known to leave locks to the kernel of this machine.
	// Otherwise the owner of a lock can be a process of another machine, unless the lock is in
	// the list: that has only locks of this machine.
	local bool

	// listed is true if the system lists processes and locks with the IDs of this PID namespace.
	listed bool

	boot, now time.Time // boot is zero if it is not known, or says nothing about the owner

	existed func(pid int, at time.Time) bool                           // process.Existed
	owners  func([]posix.Lock) (owners map[posix.Lock][]int, all bool) // posix.Owners
}

func viewOf(local bool) *view {
	v := &view{local: local, now: time.Now()}
	if local {
		v.boot = process.Boot()
	}
	return v
}

// holder returns what a lock tells about its owner: when it took the lock, and if it is a
// process of this machine, its ID in our PID namespace. The kernel tells the ID, but not if the
// lock belongs to an open file description; then the tag does. Of another program that locks
// such a range, or a holder whose clock has been set since, the tag tells nothing.
func (v *view) holder(l posix.Lock, isHere bool) locktable.Holder {
	h := locktable.Holder{Mode: locktable.Exclusive, Waiting: l.Blocked}
	if l.Type == unix.F_RDLCK {
		h.Mode = locktable.Shared
	}
	if isHere {
		h.PID = max(l.PID, 0)
	}
	if l.Start != 0 || l.Len < mainBase {
		return h
	}
	t := tag.Tag(l.Len - mainBase)
	if !t.IsPossible(v.boot, v.now) {
		return h
	}
	h.Since = t.Time()
	if isHere && h.PID == 0 && t.SameNamespace() {
		h.PID, h.Unchecked = t.PID(), true
	}
	return h
}

// holders returns the owners of the locks in the list, and of the one that is known without the
// list, unless that is nil. It looks at all processes once if a holder is not known otherwise.
func (v *view) holders(list []posix.Lock, one *posix.Lock) []locktable.Holder {
	var holders []locktable.Holder
	var unnamed []int // among the holders
	locks := map[int]posix.Lock{}
	add := func(l posix.Lock, isHere bool) {
		h := v.holder(l, isHere)
		if l.Blocked {
			h.Unchecked = false // it waits, so it is there
		}
		if h.Unchecked {
			h.Unchecked = false
			if !v.existed(h.PID, h.Since) {
				h.PID = 0 // it has left the lock to a process that has inherited the descriptor
			}
		}
		if h.PID == 0 && isHere && !l.Blocked {
			unnamed = append(unnamed, len(holders))
			locks[len(holders)] = l
		}
		holders = append(holders, h)
	}
	for _, l := range list {
		if !v.listed {
			l.PID = 0
		}
		isOne := one != nil && l.Range == one.Range && l.Type == one.Type && !l.Blocked &&
			(max(l.PID, 0) == max(one.PID, 0) || !v.listed)
		if isOne {
			l.PID, one = one.PID, nil
		}
		if l.Start == 0 { // otherwise it is pending, and the owner also holds main, or waits for it
			add(l, true)
		}
	}
	if one != nil {
		add(*one, v.local) // one of a PID namespace that the list leaves out, for example
	}
	if len(unnamed) > 0 && v.listed {
		v.name(holders, unnamed, locks)
	}
	return withoutRepeats(holders)
}

// name looks for the processes that hold those locks among all processes. Of several locks that
// look alike each is of another process, unless there are more locks than processes.
func (v *view) name(holders []locktable.Holder, unnamed []int, locks map[int]posix.Lock) {
	owners, all := v.owners(slices.Collect(maps.Values(locks)))
	for _, i := range unnamed {
		isNew := func(pid int) bool {
			return !slices.ContainsFunc(holders, func(h locktable.Holder) bool { return h.PID == pid && !h.Waiting })
		}
		pids := owners[locks[i]]
		if n := slices.IndexFunc(pids, isNew); n >= 0 {
			holders[i].PID = pids[n]
		} else if all && len(pids) > 0 {
			holders[i].PID = pids[0]
		}
	}
}

// withoutRepeats leaves one Holder of a process that has several locks, as several goroutines or
// copies of this package can have.
func withoutRepeats(holders []locktable.Holder) (once []locktable.Holder) {
	for _, h := range holders {
		isSame := func(other locktable.Holder) bool {
			return h.PID != 0 && h.PID == other.PID && h.Waiting == other.Waiting
		}
		if !slices.ContainsFunc(once, isSame) {
			once = append(once, h)
		}
	}
	return once
}
