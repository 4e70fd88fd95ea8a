//go:build unix && !aix && !solaris

package worker

import (
	"context"
	"os"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/file"
)

// A flockLock uses flock(2): see BreakVar. Each hold has an open file of its
// own, so goroutines exclude each other, too.
type flockLock struct{ path string }

func (l *flockLock) Acquire(_ context.Context, mode Mode, try bool) (*Hold, error) {
	f, err := os.OpenFile(l.path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	how := unix.LOCK_EX
	if mode == Read {
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
	return &Hold{
		Release:   f.Close,
		Downgrade: func() error { return unix.Flock(int(f.Fd()), unix.LOCK_SH) },
		Inode:     func() uint64 { return file.Inode(f) },
	}, nil
}
