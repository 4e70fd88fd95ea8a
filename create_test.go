//go:build unix || windows

package fasteners

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// removing lets somebody remove dir after directories have been made for the n-th time, if remove says
// so.
func removing(t *testing.T, dir string, remove func(n int) bool) {
	n := 0
	mkdirAll = func(path string, perm fs.FileMode) error {
		err := os.MkdirAll(path, perm)
		if n++; remove(n) {
			_ = os.RemoveAll(dir)
		}
		return err
	}
	t.Cleanup(func() { mkdirAll = os.MkdirAll })
}

// However often somebody is faster to remove the directory, that is no error of acquire.
func TestDirectoryIsRemovedEachTime(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a")
	l := NewInterProcessLock(filepath.Join(dir, "b", "lock"))
	removing(t, dir, func(n int) bool { return n <= 900 })
	if ok, err := l.TryAcquire(); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if err := l.Release(); err != nil {
		t.Error(err)
	}
}

// And it ends with the context.
func TestDirectoryIsRemovedForEver(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a")
	l := NewInterProcessLock(filepath.Join(dir, "b", "lock"))
	ctx, cancel := context.WithCancel(context.Background())
	removing(t, dir, func(n int) bool {
		if n == 500 {
			cancel()
		}
		return true
	})
	if err := l.Acquire(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Without a context that is done, it ends with the error of the last attempt.
func TestDirectoryIsRemovedTooOften(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a")
	l := NewInterProcessLock(filepath.Join(dir, "b", "lock"))
	removing(t, dir, func(int) bool { return true })
	if err := l.Acquire(context.Background()); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
