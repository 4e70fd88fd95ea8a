//go:build unix

package lockfile

import (
	"fmt"
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners/internal/locktable"
	"github.com/go-fasteners/fasteners/internal/posix"
)

// A Handle is a file descriptor.
type Handle = int

// Identify returns the identity of the lock file that path names: see [locktable.System].
func Identify(path string) (locktable.ID, error) {
	st, err := posix.Stat(path)
	if err != nil {
		return locktable.ID{}, RetryIfStale(err)
	}
	return identify(st)
}

// SameFile reports whether path names the file id: see [locktable.System].
func SameFile(path string, id locktable.ID) (bool, error) {
	st, err := posix.Stat(path)
	switch err {
	case nil:
		return id == idOf(st), nil
	case unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.ESTALE:
		return false, nil
	default:
		return false, err
	}
}

// open does not use O_CREAT: on a file of another user in a sticky directory, such as /tmp,
// that can fail even if the file exists (fs.protected_regular, proc(5)).
func open(path string, modes locktable.Mode) (File, error) {
	access := unix.O_RDWR
	switch modes {
	case locktable.Shared:
		access = unix.O_RDONLY
	case locktable.Exclusive:
		access = unix.O_WRONLY
	}
	return openFile(path, access, modes, 0)
}

func create(path string, perm fs.FileMode) (File, error) {
	return openFile(path, unix.O_RDWR|unix.O_CREAT, locktable.Shared|locktable.Exclusive, perm)
}

// mayPermitLess reports whether a file that could not be opened for both readers and writers
// may be opened for one of them. ETXTBSY says that the file is a running program, which cannot
// be opened for writing.
func mayPermitLess(err error) bool {
	return err == unix.EACCES || err == unix.EPERM || err == unix.EROFS || err == unix.ETXTBSY
}

// RetryIfStale makes acquiring start over after ESTALE: on a network file system that says that
// the file has been removed since its path was resolved.
func RetryIfStale(err error) error {
	if err == unix.ESTALE {
		return fmt.Errorf("%w: %w", locktable.ErrRetry, err)
	}
	return err
}

func openFile(path string, flags int, modes locktable.Mode, perm fs.FileMode) (File, error) {
	// Files that may only be appended to (chattr +a) can be opened for writing only with
	// O_APPEND. If the path names a FIFO by now, O_NONBLOCK keeps open from waiting for the
	// other end, and O_NOCTTY a terminal from becoming the controlling terminal of the process.
	flags |= unix.O_APPEND | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY
	fd, err := unix.Open(path, flags, uint32(perm))
	for err == unix.EINTR {
		fd, err = unix.Open(path, flags, uint32(perm))
	}
	if err == unix.EAGAIN {
		// Another process has a lease on the file, as file servers do. Without O_NONBLOCK open
		// would wait until that is given up, whatever the context says.
		err = locktable.ErrBusy
	}
	if err != nil {
		return File{}, RetryIfStale(err)
	}
	return FromDescriptor(fd, modes)
}

// FromDescriptor returns the lock file that is open as fd, which it closes if that is not a
// regular file.
func FromDescriptor(fd int, modes locktable.Mode) (File, error) {
	st, err := posix.Fstat(fd)
	if err == nil {
		var id locktable.ID
		if id, err = identify(st); err == nil {
			return File{fd, id, modes}, nil
		}
	}
	_ = unix.Close(fd)
	return File{}, RetryIfStale(err)
}

// identify returns the identity of a regular file. Other files are refused before they are
// opened: opening alone can rewind a tape, or start a watchdog.
func identify(st posix.FileInfo) (locktable.ID, error) {
	kind := "file of unknown type"
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return idOf(st), nil
	case unix.S_IFDIR:
		return locktable.ID{}, fmt.Errorf("not a regular file: %w", syscall.EISDIR)
	case unix.S_IFIFO:
		kind = "named pipe"
	case unix.S_IFSOCK:
		kind = "socket"
	case unix.S_IFCHR, unix.S_IFBLK:
		kind = "device"
	}
	return locktable.ID{}, fmt.Errorf("not a regular file but a %s: %w", kind, fs.ErrInvalid)
}

func idOf(st posix.FileInfo) locktable.ID { return locktable.ID{Volume: st.Dev, File: st.Ino} }
