//go:build unix || windows

package tests

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/internal/stress"
)

// Many goroutines find at the same time that the lock file and its directories do not exist.
func TestManyCreators(t *testing.T) {
	for range stress.Rounds() {
		path := filepath.Join(t.TempDir(), "a", "b", "lock")
		var g group
		for range 100 {
			v := variants(path)[rand.N(3)]
			g.Go(func() error { return v.hold(background) })
		}
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// If a directory does not exist and cannot be created, acquire fails.
func TestCannotCreateDirectory(t *testing.T) {
	for _, path := range pathsWithoutDirectory(t) {
		if err := fasteners.NewInterProcessLock(path).Acquire(background); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
