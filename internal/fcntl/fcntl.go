//go:build unix

// Package fcntl provides POSIX record locks in the best form that the system has, and where it can, a
// wait for them that ends with a context.
//
// Locks of the process-owned form, F_SETLK, are dropped when the process closes any descriptor of the
// file. Those of the other form, F_OFD_SETLK (Linux, fcntl(2)), belong to the open file description.
// Locks of both forms exclude each other, but for those of one process in the first.
package fcntl

import (
	"io"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ForceProcessOwned makes the package use the process-owned form alone, so that tests can run what other
// systems run. It must be set before the first lock.
var ForceProcessOwned atomic.Bool

// A Range is a part of the file, [Start, Start+Len). A Len of 0 extends it to the largest offset, 2⁶³-1,
// however long the file is.
type Range struct{ Start, Len int64 }

// Whole is all of the file, and what Python's lockf(fd, …) locks.
var Whole = Range{0, 0}

// A Descriptor is an open file to lock. Its methods may be called by one goroutine at a time, but
// Conflict by any number, and all but Wait while one goroutine is in Wait.
type Descriptor struct {
	FD int

	fileSystem   fileSystem
	processOwned bool // the file system does not know the other form
}

// New returns a descriptor of a file on the device dev (stat(2)).
func New(fd int, dev uint64) Descriptor {
	return Descriptor{FD: fd, fileSystem: newFileSystem(fd, dev)}
}

// OwnRangesConflict reports whether locks of this owner exclude each other where they overlap, as with
// SMB, which has no conversion of locks and unlocks only in the ranges in which was locked.
func (d *Descriptor) OwnRangesConflict() bool { return d.fileSystem.isSMB() }

// TryLock locks r if no other owner's lock prevents it, and reports whether it has. The type is
// unix.F_RDLCK or unix.F_WRLCK; a lock that this owner has on r is converted to it.
func (d *Descriptor) TryLock(typ int16, r Range) (bool, error) {
	for tries := 1; ; tries++ {
		err := d.setlk(setlkOFD, unix.F_SETLK, typ, r)
		switch err {
		case nil:
			return true, nil
		case unix.EAGAIN:
			return false, nil
		case unix.EACCES:
			// POSIX lets a system say this of a lock that is held, and the SMB client of Linux does. But
			// it may also be a refusal, as by AppArmor. Then nobody need hold a lock, and waiting for its
			// release would be in vain. A holder could also have released the lock before Conflict, over
			// and over, but hardly so often.
			held, err := d.Conflict(typ, r)
			if err == nil && held.Type != unix.F_UNLCK {
				return false, nil
			}
			if tries < 10 {
				continue
			}
		}
		return false, err
	}
}

// Unlock unlocks whatever the owner has locked in r.
func (d *Descriptor) Unlock(r Range) error {
	return d.setlk(setlkOFD, unix.F_SETLK, unix.F_UNLCK, r)
}

// Conflict returns a lock of another owner that prevents one of the given type on r. If there is none,
// its Type is unix.F_UNLCK.
func (d *Descriptor) Conflict(typ int16, r Range) (unix.Flock_t, error) {
	lk := newFlock(typ, r)
	err := d.call(getlkOFD, unix.F_GETLK, &lk)
	return lk, err
}

func (d *Descriptor) setlk(ofd, processOwned int, typ int16, r Range) error {
	lk := newFlock(typ, r)
	return d.call(ofd, processOwned, &lk)
}

func newFlock(typ int16, r Range) unix.Flock_t {
	return unix.Flock_t{Type: typ, Whence: io.SeekStart, Start: r.Start, Len: r.Len}
}

// ownedByProcess reports whether closing another descriptor of the file would drop the lock, too.
func (d *Descriptor) ownedByProcess() bool {
	return setlkOFD == unsupported || d.processOwned || ForceProcessOwned.Load()
}

// call makes a call that does not block, in the form that the file system knows.
func (d *Descriptor) call(ofd, processOwned int, lk *unix.Flock_t) error {
	if !d.ownedByProcess() {
		err := ignoringEINTR(d.FD, ofd, lk)
		if err != unix.EINVAL {
			return err
		}
		// Not flock(2), which excludes neither form.
		d.processOwned = true
	}
	return ignoringEINTR(d.FD, processOwned, lk)
}

// ignoringEINTR calls fcntl(2) again for as long as signals interrupt it. The runtime installs its
// handlers with SA_RESTART, but other code of the program may install some without.
func ignoringEINTR(fd, cmd int, lk *unix.Flock_t) error {
	for {
		var err error
		if Fault != nil {
			err = Fault(cmd, lk.Type)
		}
		if err == nil {
			err = unix.FcntlFlock(uintptr(fd), cmd, lk)
		}
		if err != unix.EINTR {
			return err
		}
	}
}

// Fault lets a test decide which calls fail, and how. It must be set before the first lock.
var Fault func(cmd int, typ int16) error
