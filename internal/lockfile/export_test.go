//go:build unix || windows

package lockfile

import (
	"io/fs"
	"os"
	"strings"
	"sync"
	"testing"
)

// mkdirAllIn has the functions of SetMkdirAll, by directory.
var mkdirAllIn sync.Map

// SetMkdirAll makes the package use f instead of os.MkdirAll, in dir and below, until the test
// ends.
func SetMkdirAll(t testing.TB, dir string, f func(path string, perm fs.FileMode) error) {
	mkdirAllIn.Store(dir, f)
	t.Cleanup(func() { mkdirAllIn.Delete(dir) })
}

func init() {
	mkdirAll = func(path string, perm fs.FileMode) error {
		f := os.MkdirAll
		mkdirAllIn.Range(func(dir, in any) bool {
			if strings.HasPrefix(path, dir.(string)) {
				f = in.(func(string, fs.FileMode) error)
			}
			return true
		})
		return f(path, perm)
	}
}
