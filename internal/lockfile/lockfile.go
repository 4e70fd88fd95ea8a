// Package lockfile finds, opens and creates lock files. How an open one is locked is not its
// concern.
//
// A lock file is a regular file. It is never written, truncated or removed.
package lockfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/go-fasteners/fasteners/internal/locktable"
)

// A File is an open lock file.
type File struct {
	Handle Handle // a descriptor, or what the system has instead
	ID     locktable.ID
	Modes  locktable.Mode // in which it can be locked, as it is open for reading, for writing, or for both
}

// Open opens the file for readers and writers of this process alike if possible. Otherwise it
// opens it for mode, which needs only one of the two permissions.
func Open(path string, mode locktable.Mode) (File, error) {
	f, err := open(path, locktable.Shared|locktable.Exclusive)
	if mayPermitLess(err) {
		if f, err := open(path, mode); err == nil {
			return f, nil
		}
	}
	return f, err
}

// Create is called if the file did not exist a moment ago. By now another process may have
// created it, with fewer permissions.
func Create(path string, mode locktable.Mode, perm fs.FileMode) (File, error) {
	f, err := create(path, perm)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = createBelow(path, perm)
	}
	if mayPermitLess(err) {
		if f, err := Open(path, mode); err == nil {
			return f, nil
		}
	}
	return f, err
}

// createBelow also creates the directories. If another process removes them before they have a
// file, its error wraps locktable.ErrRetry.
func createBelow(path string, perm fs.FileMode) (File, error) {
	failed := path
	err := mkdirAll(filepath.Dir(path), 0o777)
	if err == nil {
		var f File
		if f, err = create(path, perm); !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	} else if e, ok := err.(*fs.PathError); ok && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist)) {
		failed = e.Path
	} else {
		return File{}, err
	}
	if canBeCreated(failed) {
		err = fmt.Errorf("%w: %w", locktable.ErrRetry, err)
	}
	return File{}, err
}

var mkdirAll = os.MkdirAll // replaced by tests

// canBeCreated reports whether another attempt to create path may succeed, after one has failed
// because something did not exist. It cannot succeed if path is a symbolic link into a missing
// directory, if the current directory has been removed, or on a drive or host that does not
// exist.
func canBeCreated(path string) bool {
	if fi, err := os.Lstat(path); err == nil && fi.Mode()&fs.ModeSymlink != 0 {
		return false
	}
	dir := filepath.Dir(path)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return dir != filepath.Dir(dir)
	}
	_, err := os.Getwd()
	return err == nil || filepath.IsAbs(path)
}
