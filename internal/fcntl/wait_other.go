//go:build unix && !linux

package fcntl

import (
	"context"
	"errors"
)

// No command has this number: F_DUPFD, which is 0, does not lock.
const (
	unsupported = 0
	getlkOFD    = unsupported
	setlkOFD    = unsupported
)

// Wait is not possible here: F_SETLKW cannot be canceled, and takes two goroutines of different processes
// for a deadlock if each waits for a lock of the other's process.
func (d *Descriptor) Wait(context.Context, int16, Range) error { return errors.ErrUnsupported }

type fileSystem struct{}

func newFileSystem(int, uint64) fileSystem { return fileSystem{} }
func (fileSystem) isSMB() bool             { return false }
