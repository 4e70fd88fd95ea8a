//go:build unix

// Package posix provides what lock files need of a POSIX system: record locks, with a wait that
// ends with a context where the kernel can be made to do that, and the identity of the file
// that a path names.
//
// Record locks have two forms. Locks of the process-owned form (F_SETLK) are dropped when the
// process closes any descriptor of the file. Locks of the other form (F_OFD_SETLK; Linux,
// fcntl(2)) belong to the open file description. Locks exclude each other whatever their forms,
// except for process-owned locks of the same process.
package posix

import (
	"io"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ForceProcessOwned makes the package use only the process-owned form, so that tests on Linux
// can run what other systems run. It must be set before the first lock.
var ForceProcessOwned atomic.Bool

// A Range is a part of the file, [Start, Start+Len). A Len of 0 extends it to the largest
// offset, 2⁶³-1, however long the file is.
type Range struct{ Start, Len int64 }

// Whole is the whole file, which is what Python's fcntl.lockf(fd, cmd) locks.
var Whole = Range{0, 0}

// A Lock is a record lock, as the kernel reports it.
type Lock struct {
	Range
	Type    int16 // unix.F_RDLCK or unix.F_WRLCK
	PID     int   // of the owner if that is a process of this PID namespace; 0 or less otherwise
	Blocked bool  // it is not held, but waited for
}

// A Descriptor is an open file to lock. Only one goroutine at a time may call its methods, with
// two exceptions: any number of them may call Conflict, and another may call any method but
// Wait while one is in Wait.
type Descriptor struct {
	FD int

	fileSystem fileSystem
	form       atomic.Uint32
}

// What is known of the form of a descriptor's locks.
const (
	unknownForm = iota
	ofdForm
	processOwnedForm // the file system does not support the other one
)

// New returns a descriptor of a file on the device dev (stat(2)).
func New(fd int, dev uint64) Descriptor {
	return Descriptor{FD: fd, fileSystem: newFileSystem(fd, dev)}
}

// KeepForm makes calls fail where the file system does not support locks that belong to the open
// file description. It is for a description that others have as well: they would know nothing of
// a lock that belongs to this process.
func (d *Descriptor) KeepForm() { d.form.Store(ofdForm) }

// OwnRangesConflict reports whether locks of the same owner exclude each other where they
// overlap. They do on SMB, which also cannot convert a lock, and unlocks only whole ranges that
// were locked.
func (d *Descriptor) OwnRangesConflict() bool { return d.fileSystem.isSMB() }

// TryLock locks r if no lock of another owner prevents it, and reports whether it did. The type is
// unix.F_RDLCK or unix.F_WRLCK. A lock that this owner has on r is converted to that type.
func (d *Descriptor) TryLock(typ int16, r Range) (bool, error) {
	for tries := 1; ; tries++ {
		lk := newFlock(typ, r)
		err := d.call(setlkOFD, unix.F_SETLK, &lk)
		switch err {
		case nil:
			return true, nil
		case unix.EAGAIN:
			return false, nil
		case unix.EACCES:
			// POSIX lets a system return EACCES for a lock that is held, and the SMB client of
			// Linux does. But it may also be a refusal, as by AppArmor. Nobody need hold a lock
			// then, and a wait for its release would never end. A holder may also have released
			// the lock before Conflict asked, but not that many times in a row.
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
	lk := newFlock(unix.F_UNLCK, r)
	return d.call(setlkOFD, unix.F_SETLK, &lk)
}

// Conflict returns a lock of another owner that prevents one of the given type on r. If there
// is none, its Type is unix.F_UNLCK.
func (d *Descriptor) Conflict(typ int16, r Range) (unix.Flock_t, error) {
	lk := newFlock(typ, r)
	err := d.call(getlkOFD, unix.F_GETLK, &lk)
	return lk, err
}

func newFlock(typ int16, r Range) unix.Flock_t {
	return unix.Flock_t{Type: typ, Whence: io.SeekStart, Start: r.Start, Len: r.Len}
}

// OwnedByProcess reports whether a lock belongs to the process: closing another descriptor of
// the file drops it, too. On Linux that depends on the file system, and is known for sure once
// the file has been locked.
func (d *Descriptor) OwnedByProcess() bool {
	return setlkOFD == unsupported || d.form.Load() == processOwnedForm || ForceProcessOwned.Load()
}

// call makes a call that does not block, in the form that the file system supports. The form
// does not change once a lock has been locked: in the other form it could not be unlocked.
func (d *Descriptor) call(ofd, processOwned int, lk *unix.Flock_t) error {
	if !d.OwnedByProcess() {
		err := ignoringEINTR(d.FD, ofd, lk.Type, lk)
		switch known := d.form.Load() == ofdForm; {
		case err == nil && !known && ofd == setlkOFD:
			d.form.Store(ofdForm)
			return nil
		case err != unix.EINVAL || known:
			return err
		}
		d.form.Store(processOwnedForm) // not flock(2), which excludes neither form
	}
	return ignoringEINTR(d.FD, processOwned, lk.Type, lk)
}

// A FUSE server that answers EINTR makes the kernel return ERESTARTSYS, which no program should
// see, though there is no signal. So the next call may be answered in the same way, without an
// end.
const (
	erestartsys        = unix.Errno(512)
	maxRestarts        = 100
	errKeepsRestarting = unix.EINTR // what a call returns then, and at no other time
)

// ignoringEINTR calls fcntl(2) again as long as signals interrupt it. The runtime installs its
// handlers with SA_RESTART, but other code of the program may install some without. It does not
// read lk, which a wait may change.
func ignoringEINTR(fd, cmd int, typ int16, lk *unix.Flock_t) error {
	for restarts := 0; ; {
		var err error
		if Fault != nil {
			err = Fault(cmd, typ)
		}
		if err == nil {
			err = unix.FcntlFlock(uintptr(fd), cmd, lk)
		}
		switch err {
		case unix.EINTR:
		case erestartsys:
			if restarts++; restarts > maxRestarts {
				return errKeepsRestarting
			}
		default:
			return err
		}
	}
}

// Fault lets a test decide which calls fail, and how. It must be set before the first lock.
var Fault func(cmd int, typ int16) error
