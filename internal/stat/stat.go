//go:build unix

// Package stat tells which file a path names. It does so for each acquire and each release of a lock, and
// thousands of goroutines may do it at a time, so it takes no memory if it can: what unix.Stat does
// allocates, which needs more than the stack that a goroutine begins with.
package stat

import "golang.org/x/sys/unix"

// A File is what tells a file from all others, and its type and permissions.
type File struct {
	Dev, Ino uint64
	Mode     uint32
}

// FD returns the file that is open as fd.
func FD(fd int) (File, error) {
	var st unix.Stat_t
	for {
		err := unix.Fstat(fd, &st)
		if err != unix.EINTR {
			return file(&st), err
		}
	}
}

// byStat is Path in the form that all systems have.
//
//go:noinline
func byStat(path string) (File, error) {
	var st unix.Stat_t
	for {
		err := unix.Stat(path, &st)
		if err != unix.EINTR {
			return file(&st), err
		}
	}
}

func file(st *unix.Stat_t) File {
	return File{Dev: uint64(st.Dev), Ino: uint64(st.Ino), Mode: uint32(st.Mode)}
}
