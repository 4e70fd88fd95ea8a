package main

import "cmp"

// A fileID identifies a file, whatever path names it: by device and inode number, or volume serial number
// and file index.
type fileID struct{ volume, file uint64 }

func (a fileID) compare(b fileID) int {
	return cmp.Or(cmp.Compare(a.volume, b.volume), cmp.Compare(a.file, b.file))
}
