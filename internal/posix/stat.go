//go:build unix

package posix

import "golang.org/x/sys/unix"

// A FileInfo is the identity of a file, with its type and permissions.
type FileInfo struct {
	Dev, Ino uint64
	Mode     uint32
}

// Fstat returns the file that is open as fd.
func Fstat(fd int) (FileInfo, error) {
	var st unix.Stat_t
	for {
		err := unix.Fstat(fd, &st)
		if err != unix.EINTR {
			return infoOf(&st), err
		}
	}
}

// stat is Stat as all systems can do it.
//
//go:noinline
func stat(path string) (FileInfo, error) {
	var st unix.Stat_t
	for {
		err := unix.Stat(path, &st)
		if err != unix.EINTR {
			return infoOf(&st), err
		}
	}
}

func infoOf(st *unix.Stat_t) FileInfo {
	return FileInfo{Dev: uint64(st.Dev), Ino: uint64(st.Ino), Mode: uint32(st.Mode)}
}
