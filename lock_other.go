//go:build !unix && !windows

package fasteners

import (
	"errors"
	"os"
	"time"

	"github.com/go-fasteners/fasteners/internal/lockfile"
	"github.com/go-fasteners/fasteners/internal/locktable"
)

const idleTimeout = 0

// There are no file locks here. As no file can be identified, the table calls none of these.

func newFile(lockfile.File) locktable.File { return nil }

func openGiven(*os.File, locktable.Mode) (locktable.File, locktable.ID, error) {
	return nil, locktable.ID{}, errOwnedByProcess
}

func (*system) Watch(locktable.ID, locktable.Mode) (<-chan struct{}, func(bool)) {
	return nil, func(bool) {}
}

func (*system) Holders(locktable.ID, locktable.File) ([]locktable.Holder, error) {
	return nil, errors.ErrUnsupported
}

func (*system) Sleep(d time.Duration) { time.Sleep(d) }
