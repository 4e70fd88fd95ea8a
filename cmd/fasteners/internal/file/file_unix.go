//go:build unix

package file

import (
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// RemoveAfterRelease is false, since a lock file may be removed only by its
// holder: another process may have acquired the lock after a release.
const RemoveAfterRelease = false

// Identify returns the identity of the file that the path names.
func Identify(path string) (ID, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return ID{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return ID{uint64(st.Dev), uint64(st.Ino)}, nil
}

// Inode returns the inode number of an open file, or 0 if it is unknown.
func Inode(f *os.File) uint64 {
	info, err := f.Stat()
	if err != nil {
		return 0
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return uint64(st.Ino)
}

// Links returns how many names the file has.
func Links(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Nlink)
	}
	return 1
}
