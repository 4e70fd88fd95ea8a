package main

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/go-fasteners/fasteners"
)

// A holdMode is how a worker acquires the lock.
type holdMode string

const (
	exclusive holdMode = "exclusive" // through an InterProcessLock
	write     holdMode = "write"
	read      holdMode = "read"
)

// A workerLock is the lock on one file, as the workers use it. With try, acquire does not wait, and
// returns no hold if somebody else holds the lock.
type workerLock interface {
	acquire(ctx context.Context, mode holdMode, try bool) (*workerHold, error)
}

// A workerHold is a hold of the lock.
type workerHold struct {
	release   func() error
	downgrade func() error // from write to read

	// inode returns the inode number of the file that is locked, or of the one that the path names if
	// the system does not tell more.
	inode func() uint64
}

// breakVar lets the tests of check and stress break the locks, in order to see whether that is noticed.
// It is for nothing else. The values are:
//
//	off    no worker locks anything
//	flock  worker 0 uses flock(2), which excludes no other lock
//	stuck  worker 0 waits forever for the third lock
const breakVar = "FASTENERS_TEST_BREAK_LOCKS"

// newWorkerLock returns the lock for a worker with that number, to be used by several goroutines or only
// by one.
func newWorkerLock(path string, number int, shared bool) (workerLock, error) {
	sound := libraryLock{fasteners.NewInterProcessLock(path), fasteners.NewInterProcessReaderWriterLock(path), shared}
	switch how := os.Getenv(breakVar); {
	case how == "":
	case how == "off":
		return offLock{}, nil
	case how == "flock" && number == 0:
		return &flockLock{path: path}, nil
	case how == "stuck" && number == 0:
		return &stuckLock{workerLock: sound}, nil
	case how != "flock" && how != "stuck":
		return nil, fmt.Errorf("unknown value of %s: %q", breakVar, how)
	}
	return sound, nil
}

// A libraryLock is a lock of package fasteners.
type libraryLock struct {
	alone *fasteners.InterProcessLock
	rw    *fasteners.InterProcessReaderWriterLock

	// shared is true if several goroutines use the lock. Then each releases its own hold, as Release
	// can end any of them: if one goroutine has removed the file, and another one has locked the new
	// one, there are two, on different files.
	shared bool
}

func (l libraryLock) acquire(ctx context.Context, mode holdMode, try bool) (*workerHold, error) {
	ok, err := true, error(nil)
	h := &workerHold{inode: func() uint64 { return l.inode(mode) }}
	acquire, tryAcquire, hold := l.alone.Acquire, l.alone.TryAcquire, l.alone.Hold
	h.release = l.alone.Release
	switch mode {
	case read:
		acquire, tryAcquire, hold = l.rw.AcquireReadLock, l.rw.TryAcquireReadLock, l.rw.HoldRead
		h.release = l.rw.ReleaseReadLock
	case write:
		acquire, tryAcquire, hold = l.rw.AcquireWriteLock, l.rw.TryAcquireWriteLock, l.rw.HoldWrite
		h.release = l.rw.ReleaseWriteLock
	}
	h.downgrade = l.rw.Downgrade
	switch {
	case try:
		ok, err = tryAcquire()
	case l.shared:
		_, h.release, err = hold(ctx)
	default:
		err = acquire(ctx)
		h.downgrade = func() error {
			err := l.rw.Downgrade()
			if err == nil {
				h.release = l.rw.ReleaseReadLock
			}
			return err
		}
	}
	if !ok || err != nil {
		return nil, err
	}
	return h, nil
}

func (l libraryLock) inode(mode holdMode) uint64 {
	file := l.rw.File
	if mode == exclusive {
		file = l.alone.File
	}
	f, err := file()
	if err != nil {
		return inodeOf(l.rw.Path())
	}
	defer f.Close()
	return inodeOfFile(f)
}

func inodeOf(path string) uint64 {
	id, _ := identify(path)
	return id.file
}

// An offLock locks nothing.
type offLock struct{}

func (offLock) acquire(context.Context, holdMode, bool) (*workerHold, error) {
	nothing := func() error { return nil }
	return &workerHold{nothing, nothing, func() uint64 { return 0 }}, nil
}

// A stuckLock is one whose waiter is forgotten.
type stuckLock struct {
	workerLock
	n atomic.Int32
}

func (l *stuckLock) acquire(ctx context.Context, mode holdMode, try bool) (*workerHold, error) {
	if l.n.Add(1) > 2 {
		for {
			time.Sleep(time.Hour)
		}
	}
	return l.workerLock.acquire(ctx, mode, try)
}
