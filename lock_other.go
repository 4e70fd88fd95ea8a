//go:build !unix && !windows

package fasteners

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/go-fasteners/fasteners/internal/table"
)

// There are no file locks here, so nothing gets as far as to open a file.

const linger = 0

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

type system struct{}

func (*system) Identify(string) (table.ID, error) {
	return table.ID{}, errors.ErrUnsupported
}

func (*system) Names(string, table.ID) (bool, error) {
	return false, errors.ErrUnsupported
}

func (*system) open(string, table.Mode) (table.File, table.ID, error) {
	return nil, table.ID{}, errors.ErrUnsupported
}

func (*system) create(string, fs.FileMode) (table.File, table.ID, error) {
	return nil, table.ID{}, errors.ErrUnsupported
}

func isPermission(error) bool { return false }

func (*system) Claim(table.ID) (drop func()) { return func() {} }
func (*system) Claimed(table.ID) bool        { return false }
func (*system) Sleep(time.Duration)          {}
