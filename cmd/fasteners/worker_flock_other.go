//go:build !unix || aix || solaris

package main

// There is no flock(2) here.
func newFlock(string) workerLock { return offLock{} }
