//go:build !unix && !windows

package fasteners

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/go-fasteners/fasteners/internal/table"
)

const idleTimeout = 0

// There are no file locks here. As Identify always fails, the table calls none of the other methods.

func (*system) Identify(string) (table.ID, error) { return table.ID{}, errors.ErrUnsupported }

func (*system) SameFile(string, table.ID) (bool, error) { return false, errors.ErrUnsupported }

func (*system) open(string, table.Mode) (table.File, table.ID, error) {
	return nil, table.ID{}, errors.ErrUnsupported
}

func (*system) create(string, fs.FileMode) (table.File, table.ID, error) {
	return nil, table.ID{}, errors.ErrUnsupported
}

func (*system) Watch(table.ID, table.Mode) (<-chan struct{}, func(bool)) { return nil, func(bool) {} }

func (*system) Holders(table.ID, table.File) ([]table.Holder, error) {
	return nil, errors.ErrUnsupported
}

func (*system) Sleep(d time.Duration) { time.Sleep(d) }

func openInherited(*os.File, table.Mode) (table.File, table.ID, error) {
	return nil, table.ID{}, errOwnedByProcess
}

func mayPermitLess(error) bool { return false }
