package main

import "io/fs"

// removeAfterRelease is true, since a file that is open here cannot be removed: neither the holder can do
// that, nor anybody while somebody else holds the lock.
const removeAfterRelease = true

// links does not matter: no name of a file that somebody has open can be removed.
func links(fs.FileInfo) uint64 { return 1 }
