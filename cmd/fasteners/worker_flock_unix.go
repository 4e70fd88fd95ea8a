//go:build unix && !aix && !solaris

package main

import (
	"context"
	"os"

	"golang.org/x/sys/unix"
)

// A flockLock uses flock(2): see breakVar. Each hold has an open file of its own, so goroutines exclude
// each other, too.
type flockLock struct{ path string }

func (l *flockLock) acquire(_ context.Context, mode holdMode, try bool) (*workerHold, error) {
	f, err := os.OpenFile(l.path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	how := unix.LOCK_EX
	if mode == read {
		how = unix.LOCK_SH
	}
	if try {
		how |= unix.LOCK_NB
	}
	if err := unix.Flock(int(f.Fd()), how); err != nil {
		_ = f.Close()
		if try && err == unix.EWOULDBLOCK {
			return nil, nil
		}
		return nil, err
	}
	return &workerHold{
		release:   f.Close,
		downgrade: func() error { return unix.Flock(int(f.Fd()), unix.LOCK_SH) },
		inode:     func() uint64 { return inodeOfFile(f) },
	}, nil
}
