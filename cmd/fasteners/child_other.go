//go:build !linux

package main

import "errors"

func unlockDescriptor(int) error { return errors.ErrUnsupported }
