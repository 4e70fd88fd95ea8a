//go:build unix

// Package fcntl has POSIX record locks in the best form that the system has.
//
// The classic form, F_SETLK and F_SETLKW, belongs to the process: it loses the
// lock when it closes any descriptor of the file. The open file description form,
// F_OFD_SETLK and F_OFD_SETLKW (Linux, fcntl(2)), belongs to what open(2) made.
// Both exclude each other, in both directions, in different processes.
package fcntl

import (
	"io"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ForceClassic makes the package use the classic form alone, so that tests can
// run what other systems run. It is set before the first lock.
var ForceClassic atomic.Bool

// A Range is a part of the file, [Start, Start+Len). A Len of 0 is up to
// the largest possible offset, which is far beyond the end of the file.
type Range struct{ Start, Len int64 }

// Whole is all of the file, and what Python's lockf(fd, …) locks.
var Whole = Range{0, 0}

// A Descriptor is an open file to lock. Its methods may be used by one goroutine
// at a time.
type Descriptor struct {
	FD int

	// Local may be set when the locks of the file are known to be in this machine's kernel,
	// where nothing but Wait waits for others.
	Local bool

	classic bool // the file system does not know the other form
}

// Try locks r if it can be done at once. The type of lock is unix.F_RDLCK or
// unix.F_WRLCK; a lock that the owner has on r is converted to it.
func (d *Descriptor) Try(typ int16, r Range) (bool, error) {
	err := d.call(setlkOFD, unix.F_SETLK, &unix.Flock_t{Type: typ}, r)
	// POSIX lets a system answer either.
	if err == unix.EAGAIN || err == unix.EACCES {
		return false, nil
	}
	return err == nil, err
}

// Wait locks r and blocks until it has. It returns false where the kernel thinks
// that this would be a deadlock: it judges by process, and knows nothing of the
// goroutine that will release the lock.
func (d *Descriptor) Wait(typ int16, r Range) (bool, error) {
	err := d.call(setlkwOFD, unix.F_SETLKW, &unix.Flock_t{Type: typ}, r)
	if err == unix.EDEADLK {
		return false, nil
	}
	return err == nil, err
}

// Unlock lets go of whatever the owner has locked in r.
func (d *Descriptor) Unlock(r Range) error {
	return d.call(setlkOFD, unix.F_SETLK, &unix.Flock_t{Type: unix.F_UNLCK}, r)
}

// Test returns the type of a lock that others have on r and that excludes one of the given
// type, or unix.F_UNLCK if there is none. It reports whether that lock is of the classic form.
func (d *Descriptor) Test(typ int16, r Range) (other int16, classic bool, err error) {
	lk := unix.Flock_t{Type: typ}
	err = d.call(getlkOFD, unix.F_GETLK, &lk, r)
	return lk.Type, lk.Pid != -1, err // of an open file description Linux says -1
}

// Classic reports whether closing another descriptor of the file, too, would drop the lock.
func (d *Descriptor) Classic() bool {
	return setlkOFD == none || d.classic || ForceClassic.Load()
}

func (d *Descriptor) call(ofd, classic int, lk *unix.Flock_t, r Range) error {
	lk.Whence, lk.Start, lk.Len = io.SeekStart, r.Start, r.Len
	if !d.Classic() {
		err := d.retry(ofd, lk)
		if err != unix.EINVAL {
			return err
		}
		// Not flock(2), which neither form sees.
		d.classic = true
	}
	return d.retry(classic, lk)
}

// retry calls fcntl(2) again for as long as a signal has cut it short. The
// runtime installs its handlers with SA_RESTART, but other code of the program
// may install some without.
func (d *Descriptor) retry(cmd int, lk *unix.Flock_t) error {
	for {
		err := fcntl(d.FD, cmd, lk, d.Local && cmd != setlkwOFD && cmd != unix.F_SETLKW)
		if err != unix.EINTR {
			return err
		}
	}
}
