//go:build !linux

package process

import "time"

func areListed() bool { return true }

func boot() time.Time { return time.Time{} }

// start does not know when the process began. Here the kernel tells which one holds a lock.
func start(pid int) (began time.Time, exists bool) { return time.Time{}, isThere(pid) }
