//go:build darwin || dragonfly || freebsd

package posix

import "golang.org/x/sys/unix"

type fileSystem struct{ local bool }

func newFileSystem(fd int, _ uint64) fileSystem {
	var st unix.Statfs_t
	return fileSystem{unix.Fstatfs(fd, &st) == nil && st.Flags&unix.MNT_LOCAL != 0}
}

func (fileSystem) isSMB() bool { return false }

// IsLocal reports whether the locks of the file are known to be kept by the kernel of this machine.
func (d *Descriptor) IsLocal() bool { return d.fileSystem.local }
