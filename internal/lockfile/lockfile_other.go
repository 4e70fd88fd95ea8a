//go:build !unix && !windows

package lockfile

import (
	"errors"
	"io/fs"

	"github.com/go-fasteners/fasteners/internal/locktable"
)

// A Handle stands for what a system without file locks does not have.
type Handle = int

// Identify always fails, so there is never an open file here.
func Identify(string) (locktable.ID, error) { return locktable.ID{}, errors.ErrUnsupported }

// SameFile always fails, too.
func SameFile(string, locktable.ID) (bool, error) { return false, errors.ErrUnsupported }

func open(string, locktable.Mode) (File, error) { return File{}, errors.ErrUnsupported }

func create(string, fs.FileMode) (File, error) { return File{}, errors.ErrUnsupported }

func mkdir(string) error { return errors.ErrUnsupported }

func explain(err error, _, _ string) error { return err }

func isRemoved(fs.FileInfo) bool { return false }
