//go:build !linux

package run

import "errors"

func unlockDescriptor(int) error { return errors.ErrUnsupported }
