//go:build !windows

package main

// removeAfterRelease is false, since a lock file may be removed only by its holder: somebody else may have
// acquired the lock after a release.
const removeAfterRelease = false
