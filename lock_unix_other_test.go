//go:build unix && !linux

package fasteners_test

import "errors"

func mountTmpfs(dir, options string) error { return errors.ErrUnsupported }
func unmount(dir string) error             { return errors.ErrUnsupported }

var waysOfProcesses = []string{"ours"}

func blockingLock(string) (acquire, release func() error) { return nil, nil }
