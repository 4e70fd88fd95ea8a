package main

import (
	"context"
	"fmt"
	"os"
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

// A workerLock is the lock on one file, as the workers use it.
type workerLock interface {
	acquire(context.Context, holdMode) error
	try(holdMode) (bool, error)
	release(holdMode) error
	downgrade() error // from write to read

	// inode returns the inode number of the file that is locked, or of the one that the path names, where the
	// system cannot tell more.
	inode(holdMode) uint64
}

// breakVar lets the tests of check and stress break the locks, in order to see whether that is noticed. It is for
// nothing else. The values are:
//
//	off    no worker locks anything
//	flock  worker 0 uses flock(2), which excludes no other lock
//	stuck  worker 0 waits forever for its hundredth lock
const breakVar = "FASTENERS_TEST_BREAK_LOCKS"

// newWorkerLock returns the lock for a worker with that number.
func newWorkerLock(path string, number int) (workerLock, error) {
	switch how := os.Getenv(breakVar); {
	case how == "":
	case how == "off":
		return offLock{}, nil
	case how == "flock" && number == 0:
		return newFlock(path), nil
	case how == "stuck" && number == 0:
		return &stuckLock{workerLock: newLibraryLock(path)}, nil
	case how != "flock" && how != "stuck":
		return nil, fmt.Errorf("unknown value of %s: %q", breakVar, how)
	}
	return newLibraryLock(path), nil
}

// A libraryLock is a lock of package fasteners.
type libraryLock struct {
	alone *fasteners.InterProcessLock
	rw    *fasteners.InterProcessReaderWriterLock
}

func newLibraryLock(path string) libraryLock {
	return libraryLock{fasteners.NewInterProcessLock(path), fasteners.NewInterProcessReaderWriterLock(path)}
}

func (l libraryLock) inode(mode holdMode) uint64 {
	f, err := l.file(mode)
	if err != nil {
		return inodeOf(l.rw.Path())
	}
	defer f.Close()
	return inodeOfFile(f)
}

func (l libraryLock) file(mode holdMode) (*os.File, error) {
	if mode == exclusive {
		return l.alone.File()
	}
	return l.rw.File()
}

func inodeOf(path string) uint64 {
	_, inode, _ := lockFileID(path)
	return inode
}

func (l libraryLock) acquire(ctx context.Context, mode holdMode) error {
	switch mode {
	case read:
		return l.rw.AcquireReadLock(ctx)
	case write:
		return l.rw.AcquireWriteLock(ctx)
	}
	return l.alone.Acquire(ctx)
}

func (l libraryLock) try(mode holdMode) (bool, error) {
	switch mode {
	case read:
		return l.rw.TryAcquireReadLock()
	case write:
		return l.rw.TryAcquireWriteLock()
	}
	return l.alone.TryAcquire()
}

func (l libraryLock) release(mode holdMode) error {
	switch mode {
	case read:
		return l.rw.ReleaseReadLock()
	case write:
		return l.rw.ReleaseWriteLock()
	}
	return l.alone.Release()
}

func (l libraryLock) downgrade() error { return l.rw.Downgrade() }

// An offLock locks nothing.
type offLock struct{}

func (offLock) acquire(context.Context, holdMode) error { return nil }
func (offLock) try(holdMode) (bool, error)              { return true, nil }
func (offLock) release(holdMode) error                  { return nil }
func (offLock) downgrade() error                        { return nil }
func (offLock) inode(holdMode) uint64                   { return 0 }

// A stuckLock is one whose waiter is forgotten.
type stuckLock struct {
	workerLock
	n int
}

func (l *stuckLock) acquire(ctx context.Context, mode holdMode) error {
	if l.n++; l.n >= 100 {
		for {
			time.Sleep(time.Hour)
		}
	}
	return l.workerLock.acquire(ctx, mode)
}
