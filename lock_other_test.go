//go:build !unix && !windows

package fasteners_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-fasteners/fasteners"
)

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
		t.Errorf("exists %v, acquired %v", l.Exists(), l.Acquired())
	}
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if !l.Exists() {
		t.Error("the file is there")
	}
	if err := l.Release(); !errors.Is(err, fasteners.ErrNotAcquired) {
		t.Errorf("release: %v", err)
	}
}
