//go:build unix && !aix && !solaris

package main

import (
	"context"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A flockLock uses flock(2): see breakVar. A mutex excludes the goroutines, so it has one holder, also if that is a
// reader.
type flockLock struct {
	path string
	mu   sync.Mutex
	file *os.File
}

func newFlock(path string) workerLock { return &flockLock{path: path} }

func (l *flockLock) acquire(context.Context, holdMode) error {
	l.mu.Lock()
	f, err := os.OpenFile(l.path, os.O_RDWR|os.O_CREATE, 0o666)
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		l.mu.Unlock()
		return err
	}
	l.file = f
	return nil
}

func (l *flockLock) try(mode holdMode) (bool, error) {
	err := l.acquire(context.Background(), mode)
	return err == nil, err
}

func (l *flockLock) release(holdMode) error {
	err := l.file.Close()
	l.mu.Unlock()
	return err
}

func (*flockLock) downgrade() error { return nil }

func (l *flockLock) inode(holdMode) uint64 { return inodeOfFile(l.file) }
