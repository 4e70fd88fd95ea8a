//go:build unix && !linux

package posix

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

// Wait is not supported. F_SETLKW cannot be canceled, and it reports false deadlocks (EDEADLK):
// the kernel sees two processes wait for each other where only some of their goroutines do.
func (d *Descriptor) Wait(context.Context, int16, Range) error { return errors.ErrUnsupported }

// CanWait returns false.
func (d *Descriptor) CanWait() bool { return false }
