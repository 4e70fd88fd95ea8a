//go:build unix || windows

package tests

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/lockertest"
)

// The file locks are what lockertest requires of all locks. They are lost by a removal of the file,
// where that is possible.
func TestConformance(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	locks := lockertest.Locks{
		NewLock: func(_ *testing.T, name string) fasteners.Locker {
			return fasteners.NewInterProcessLock(path(name))
		},
		NewReaderWriterLock: func(_ *testing.T, name string) fasteners.ReaderWriterLocker {
			return fasteners.NewInterProcessReaderWriterLock(path(name))
		},
		OneQueue: true,
	}
	if filesCanBeReplacedWhileOpen {
		locks.Lose = func(t *testing.T, name string) { must(t, os.Remove(path(name))) }
	}
	lockertest.Test(t, locks)
}
