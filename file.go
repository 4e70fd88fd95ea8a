package fasteners

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/go-fasteners/fasteners/internal/table"
)

// A system is the file system, as the table sees it: how lock files are found, opened and created. What
// differs between operating systems is in file_*.go, and how an open file is locked in lock_*.go.
type system struct{}

// Open opens the file for readers and writers of this process alike if possible. Otherwise it opens it
// for mode, which needs only one of the two permissions.
func (s *system) Open(path string, mode table.Mode) (table.File, table.ID, error) {
	f, id, err := s.open(path, table.Shared|table.Exclusive)
	if mayPermitLess(err) {
		if f, id, err := s.open(path, mode); err == nil {
			return f, id, nil
		}
	}
	return f, id, err
}

// Create is called if the file did not exist a moment ago. By now another process may have created it, with
// fewer permissions.
func (s *system) Create(path string, mode table.Mode, perm fs.FileMode) (table.File, table.ID, error) {
	f, id, err := s.create(path, perm)
	if errors.Is(err, fs.ErrNotExist) {
		f, id, err = s.createBelow(path, perm)
	}
	if mayPermitLess(err) {
		if f, id, err := s.Open(path, mode); err == nil {
			return f, id, nil
		}
	}
	return f, id, err
}

// createBelow also creates the directories. If another process removes them before they have a file, its
// error wraps table.ErrRetry.
func (s *system) createBelow(path string, perm fs.FileMode) (table.File, table.ID, error) {
	failed := path
	err := mkdirAll(filepath.Dir(path), 0o777)
	if err == nil {
		var f table.File
		var id table.ID
		if f, id, err = s.create(path, perm); !errors.Is(err, fs.ErrNotExist) {
			return f, id, err
		}
	} else if e, ok := err.(*fs.PathError); ok && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist)) {
		failed = e.Path
	} else {
		return nil, table.ID{}, err
	}
	if canBeCreated(failed) {
		err = fmt.Errorf("%w: %w", table.ErrRetry, err)
	}
	return nil, table.ID{}, err
}

var mkdirAll = os.MkdirAll // replaced by tests

// canBeCreated reports whether another attempt to create path may succeed, after one has failed because
// something did not exist. It cannot succeed if path is a symbolic link into a missing directory, if the
// current directory has been removed, or on a drive or host that does not exist.
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
