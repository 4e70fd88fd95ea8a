package worker

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/file"
)

// A Mode is how a worker acquires the lock.
type Mode string

// The modes. A holder that is exclusive excludes the same others as one that
// writes.
const (
	Exclusive Mode = "exclusive" // through an InterProcessLock
	Write     Mode = "write"
	Read      Mode = "read"
)

// A Lock is the lock on one file, as the workers use it.
type Lock interface {
	// Acquire acquires the lock. With try it does not wait, and returns no hold
	// if another process holds the lock.
	Acquire(ctx context.Context, mode Mode, try bool) (*Hold, error)
}

// A Hold is a hold of the lock.
type Hold struct {
	Release   func() error
	Downgrade func() error // from write to read

	// Inode returns the inode number of the file that is locked, or of the one
	// that the path names if the system does not tell more.
	Inode func() uint64
}

// BreakVar lets the tests of check and stress break the locks, in order to see
// whether that is noticed. It is for nothing else. The values are:
//
//	off    no worker locks anything
//	flock  worker 0 uses flock(2), which excludes no other lock
//	stuck  worker 0 waits forever for the third lock
const BreakVar = "FASTENERS_TEST_BREAK_LOCKS"

// NewLock returns the lock for the worker, to be used by several goroutines or
// only by one.
func (p *Place) NewLock(shared bool) (Lock, error) {
	sound := libraryLock{
		fasteners.NewInterProcessLock(p.Lock), fasteners.NewInterProcessReaderWriterLock(p.Lock), shared,
	}
	switch how := os.Getenv(BreakVar); {
	case how == "":
	case how == "off":
		return offLock{}, nil
	case how == "flock" && p.Number == 0:
		return &flockLock{path: p.Lock}, nil
	case how == "stuck" && p.Number == 0:
		return &stuckLock{Lock: sound}, nil
	case how != "flock" && how != "stuck":
		return nil, fmt.Errorf("unknown value of %s: %q", BreakVar, how)
	}
	return sound, nil
}

// A libraryLock is a lock of package fasteners.
type libraryLock struct {
	alone *fasteners.InterProcessLock
	rw    *fasteners.InterProcessReaderWriterLock

	// shared is true if several goroutines use the lock. Then each releases its
	// own hold, as Release can end any of them: if one goroutine has removed
	// the file, and another one has locked the new one, there are two, on
	// different files.
	shared bool
}

func (l libraryLock) Acquire(ctx context.Context, mode Mode, try bool) (*Hold, error) {
	ok, err := true, error(nil)
	h := &Hold{Inode: func() uint64 { return l.inode(mode) }}
	acquire, tryAcquire, hold := l.alone.Acquire, l.alone.TryAcquire, l.alone.Hold
	h.Release = l.alone.Release
	switch mode {
	case Read:
		acquire, tryAcquire, hold = l.rw.AcquireReadLock, l.rw.TryAcquireReadLock, l.rw.HoldRead
		h.Release = l.rw.ReleaseReadLock
	case Write:
		acquire, tryAcquire, hold = l.rw.AcquireWriteLock, l.rw.TryAcquireWriteLock, l.rw.HoldWrite
		h.Release = l.rw.ReleaseWriteLock
	}
	h.Downgrade = l.rw.Downgrade
	switch {
	case try:
		ok, err = tryAcquire()
	case l.shared:
		_, h.Release, err = hold(ctx)
	default:
		err = acquire(ctx)
		h.Downgrade = func() error {
			err := l.rw.Downgrade()
			if err == nil {
				h.Release = l.rw.ReleaseReadLock
			}
			return err
		}
	}
	if !ok || err != nil {
		return nil, err
	}
	return h, nil
}

func (l libraryLock) inode(mode Mode) uint64 {
	open := l.rw.File
	if mode == Exclusive {
		open = l.alone.File
	}
	f, err := open()
	if err != nil {
		id, _ := file.Identify(l.rw.Path())
		return id.File
	}
	defer f.Close()
	return file.Inode(f)
}

// An offLock locks nothing.
type offLock struct{}

func (offLock) Acquire(context.Context, Mode, bool) (*Hold, error) {
	nothing := func() error { return nil }
	return &Hold{nothing, nothing, func() uint64 { return 0 }}, nil
}

// A stuckLock is one whose waiter is forgotten.
type stuckLock struct {
	Lock
	n atomic.Int32
}

func (l *stuckLock) Acquire(ctx context.Context, mode Mode, try bool) (*Hold, error) {
	if l.n.Add(1) > 2 {
		for {
			time.Sleep(time.Hour)
		}
	}
	return l.Lock.Acquire(ctx, mode, try)
}
