//go:build unix || windows

package fasteners

import (
	"io/fs"
	"os"
	"testing"
)

// SetMkdirAll makes the package use f instead of os.MkdirAll until the test ends.
func SetMkdirAll(t testing.TB, f func(path string, perm fs.FileMode) error) {
	mkdirAll = f
	t.Cleanup(func() { mkdirAll = os.MkdirAll })
}
