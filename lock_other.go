//go:build !unix && !windows

package fasteners

import (
	"errors"
	"io/fs"

	"github.com/go-fasteners/fasteners/internal/table"
)

const idleTimeout = 0

// system has no file locks, so nothing gets past Identify.
type system struct{ table.System }

func (*system) Identify(string) (table.ID, error) { return table.ID{}, errors.ErrUnsupported }

func (*system) open(string, table.Mode) (table.File, table.ID, error) {
	return nil, table.ID{}, errors.ErrUnsupported
}

func (*system) create(string, fs.FileMode) (table.File, table.ID, error) {
	return nil, table.ID{}, errors.ErrUnsupported
}

func mayPermitLess(error) bool { return false }
