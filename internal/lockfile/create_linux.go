package lockfile

import (
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// createUnnamed creates the file without a name, gives it its permissions, whatever the umask, and
// then its name. Not all file systems can do that (O_TMPFILE, open(2)), and it needs /proc.
func createUnnamed(path string, perm fs.FileMode) (File, error) {
	dir, _ := cut(path)
	fd, err := openFD(dir, unix.O_RDWR|unix.O_TMPFILE, uint32(perm))
	if err != nil {
		return File{}, err
	}
	if err = chmod(fd, perm); err == nil {
		err = unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
	}
	if err != nil {
		_ = unix.Close(fd) // the file had no name, so nobody has locked it
		return File{}, err
	}
	return FromDescriptor(fd, createModes)
}
