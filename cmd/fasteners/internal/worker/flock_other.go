//go:build !unix || aix || solaris

package worker

// A flockLock locks nothing, as there is no flock(2) here.
type flockLock struct {
	offLock
	path string
}
