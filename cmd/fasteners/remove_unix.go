//go:build unix

package main

import (
	"io/fs"
	"syscall"
)

// removeAfterRelease is false, since a lock file may be removed only by its holder: somebody else may
// have acquired the lock after a release.
const removeAfterRelease = false

// links returns how many names the file has.
func links(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Nlink)
	}
	return 1
}
