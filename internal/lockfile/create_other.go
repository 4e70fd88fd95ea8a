//go:build unix && !linux

package lockfile

import (
	"errors"
	"io/fs"
)

func createUnnamed(string, fs.FileMode) (File, error) { return File{}, errors.ErrUnsupported }
