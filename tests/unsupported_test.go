//go:build !unix && !windows

package tests

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-fasteners/fasteners"
)

// On a system without file locks, acquire reports that.
func TestUnsupported(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	l := fasteners.NewInterProcessLock(path)
	rw := fasteners.NewInterProcessReaderWriterLock(path)
	_, tryErr := l.TryAcquire()
	_, tryReadErr := rw.TryAcquireReadLock()
	_, tryWriteErr := rw.TryAcquireWriteLock()
	for _, err := range []error{
		l.Acquire(context.Background()), tryErr,
		rw.AcquireReadLock(context.Background()), tryReadErr,
		rw.AcquireWriteLock(context.Background()), tryWriteErr,
	} {
		var pathErr *fs.PathError
		if !errors.Is(err, errors.ErrUnsupported) || !errors.As(err, &pathErr) || pathErr.Path != path {
			t.Errorf("error is %v", err)
		}
	}
	if l.Exists() || l.Acquired() {
		t.Errorf("Exists is %v, Acquired is %v", l.Exists(), l.Acquired())
	}
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if !l.Exists() {
		t.Error("Exists is false although the file exists")
	}
	if err := l.Release(); !errors.Is(err, fasteners.ErrNotAcquired) {
		t.Errorf("release: %v", err)
	}
}
