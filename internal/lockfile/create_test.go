//go:build unix || windows

package lockfile_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/internal/lockfile"
)

// removeAfterMkdir removes dir immediately after acquire has created a directory there for the n-th
// time, if remove(n) is true, as another process might.
func removeAfterMkdir(t *testing.T, dir string, remove func(n int) bool) {
	n := 0
	lockfile.SetMkdir(t, dir, func(_ string, mkdir func() error) error {
		err := mkdir()
		if err != nil {
			return err
		}
		if n++; remove(n) {
			_ = os.RemoveAll(dir)
		}
		return nil
	})
}

// Acquire retries if the directory is removed before it can create the file, even hundreds of
// times.
func TestDirectoryRemovedRepeatedly(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a")
	l := fasteners.NewInterProcessLock(filepath.Join(dir, "b", "lock"))
	removeAfterMkdir(t, dir, func(n int) bool { return n <= 900 })
	if ok, err := l.TryAcquire(); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if err := l.Release(); err != nil {
		t.Error(err)
	}
}

// The retries end when the context is done.
func TestDirectoryRemovedUntilCanceled(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a")
	l := fasteners.NewInterProcessLock(filepath.Join(dir, "b", "lock"))
	ctx, cancel := context.WithCancel(context.Background())
	removeAfterMkdir(t, dir, func(n int) bool {
		if n == 500 {
			cancel()
		}
		return true
	})
	if err := l.Acquire(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// If the context is never done, the retries end with the error of the last one.
func TestDirectoryRemovedTooOften(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a")
	l := fasteners.NewInterProcessLock(filepath.Join(dir, "b", "lock"))
	removeAfterMkdir(t, dir, func(int) bool { return true })
	if err := l.Acquire(context.Background()); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
