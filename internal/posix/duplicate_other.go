//go:build unix && !linux

package posix

import "errors"

// Duplicate is not needed: locks belong to the process here, and not to the open file description.
func Duplicate(uintptr) (int, error) { return -1, errors.ErrUnsupported }
