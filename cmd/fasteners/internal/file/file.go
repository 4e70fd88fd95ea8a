// Package file tells of files and file systems what the commands need and
// package os does not tell alike on all systems.
package file

import "cmp"

// An ID identifies a file, whatever path names it: by device and inode number,
// or volume serial number and file index.
type ID struct{ Volume, File uint64 }

// Compare puts the identities of files into one order for all processes.
func (a ID) Compare(b ID) int {
	return cmp.Or(cmp.Compare(a.Volume, b.Volume), cmp.Compare(a.File, b.File))
}
