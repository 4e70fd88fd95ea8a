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
	"time"

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
	f, err := openAtAll(path, mode)
	for tries := 0; tries < 20 && errors.Is(err, fs.ErrPermission) && isNew(path); tries++ {
		time.Sleep(time.Millisecond)
		f, err = openAtAll(path, mode)
	}
	return f, explain(err, "lock file", path)
}

// openAtAll returns the error of the first attempt if both fail. There are many reasons for which
// a file can be opened for reading only: permissions, a file system that is mounted read-only, or
// that is full and would have to copy the file to another layer, a program that runs. So what
// decides is the second attempt, and not the error of the first.
func openAtAll(path string, mode locktable.Mode) (File, error) {
	f, err := open(path, locktable.Shared|locktable.Exclusive)
	if err != nil {
		if f, err := open(path, mode); err == nil {
			return f, nil
		}
	}
	return f, err
}

// isNew reports whether the file that path names was created, or written, a moment ago: where a
// file cannot be created with the permissions that it is to have, it gets them just afterwards.
func isNew(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && time.Since(fi.ModTime()) < 100*time.Millisecond
}

// Create is called if the file did not exist a moment ago. By now another process may have
// created it, with fewer permissions. If perm is 0, the file gets 0666, less the umask, and
// otherwise exactly perm.
//
// It creates only what path itself names, and not what a symbolic link of that name points to:
// anybody who may write the directory could let another user create files anywhere.
func Create(path string, mode locktable.Mode, perm fs.FileMode) (File, error) {
	dir, name := cut(path)
	if name == "" || name == "." || name == ".." {
		return File{}, fmt.Errorf("path is that of a directory, as its end tells: %w", fs.ErrInvalid)
	}
	var f File
	err := createIn(dir, func() (err error) {
		f, err = create(path, perm)
		return explain(err, "directory", dir)
	})
	if err == nil || errors.Is(err, errMode) {
		return f, err
	}
	f, openErr := Open(path, mode)
	switch {
	case openErr == nil:
		return f, nil
	case !errors.Is(err, fs.ErrExist):
		return File{}, err
	case errors.Is(openErr, fs.ErrNotExist):
		return File{}, missing(path, openErr)
	}
	return File{}, openErr
}

// errMode is wrapped by the error of create if the file exists by then.
var errMode = errors.New("the lock file was created, but does not get the mode")

// createIn calls create, which creates something in the directory dir. If that fails since dir does
// not exist, it creates dir, and calls create again.
//
// Then another process may have removed dir: the error wraps locktable.ErrRetry. But if dir has
// been there all the time, as it seems, and has refused twice, it will always refuse. A
// directory that is just being removed refuses, too, and can still be found for a moment.
func createIn(dir string, create func() error) error {
	err := create()
	if !errors.Is(err, fs.ErrNotExist) || !canBeCreated(dir) {
		return err
	}
	if err := makeDir(dir); err != nil {
		return err
	}
	for range 2 {
		before, _ := os.Stat(dir)
		if err = create(); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		after, _ := os.Stat(dir)
		if before == nil || after == nil || isRemoved(after) ||
			!os.SameFile(before, after) || !before.ModTime().Equal(after.ModTime()) {
			return fmt.Errorf("%w: %w", locktable.ErrRetry, err)
		}
	}
	return err
}

// makeDir creates a directory, and those above it, unless it exists.
func makeDir(dir string) error {
	above, _ := cut(dir)
	err := createIn(above, func() error { return explain(mkdir(dir), "directory", above) })
	if err == nil {
		return nil
	}
	switch fi, statErr := os.Stat(dir); {
	case statErr == nil && fi.IsDir():
		return nil
	case errors.Is(err, fs.ErrExist) && errors.Is(statErr, fs.ErrNotExist):
		return &fs.PathError{Op: "mkdir", Path: dir, Err: missing(dir, statErr)}
	}
	return err
}

// missing returns the error for something that exists, as creating it has shown, but cannot be
// found: it is a symbolic link to something that does not exist, or has been removed meanwhile.
func missing(path string, err error) error {
	if target, linkErr := os.Readlink(path); linkErr == nil {
		return fmt.Errorf("a symbolic link to nothing, %q, which is not created: %w", target, fs.ErrNotExist)
	}
	return fmt.Errorf("%w: %w", locktable.ErrRetry, err)
}
