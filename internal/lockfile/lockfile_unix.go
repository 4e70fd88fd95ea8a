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

// RetryIfStale makes acquiring start over after ESTALE: on a network file system that says that
// the file has been removed since its path was resolved.
func RetryIfStale(err error) error {
	if err == unix.ESTALE {
		return fmt.Errorf("%w: %w", locktable.ErrRetry, err)
	}
	return err
}

func openFile(path string, access int, modes locktable.Mode, perm fs.FileMode) (File, error) {
	fd, err := openFD(path, access, uint32(perm))
	if err != nil {
		return File{}, err
	}
	return FromDescriptor(fd, modes)
}

// openFD returns a descriptor that is not one of the standard streams.
func openFD(path string, flags int, perm uint32) (int, error) {
	// Files that may only be appended to (chattr +a) can be opened for writing only with
	// O_APPEND. If the path names a FIFO by now, O_NONBLOCK keeps open from waiting for the
	// other end, and O_NOCTTY a terminal from becoming the controlling terminal of the process.
	flags |= unix.O_APPEND | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY
	fd, err := posix.OpenAbove(func() (fd int, err error) {
		err = posix.Retry(func() error { fd, err = sys.open(path, flags, perm); return err })
		return fd, err
	})
	if err == unix.EAGAIN {
		// Another process has a lease on the file, as file servers do. Without O_NONBLOCK open
		// would wait until that is given up, whatever the context says.
		err = locktable.ErrBusy
	}
	return fd, RetryIfStale(err)
}

// sys are the system calls that tests make fail.
var sys = struct {
	open   func(path string, flags int, perm uint32) (int, error)
	fchmod func(fd int, mode uint32) error
	mkdir  func(path string, mode uint32) error
}{unix.Open, unix.Fchmod, syscall.Mkdir}

// FromDescriptor returns the lock file that is open as fd, which it closes if that is not a
// regular file, and discards if it cannot find out.
func FromDescriptor(fd int, modes locktable.Mode) (File, error) {
	st, err := posix.Fstat(fd)
	if err != nil {
		posix.Discard(fd)
		return File{}, RetryIfStale(err)
	}
	id, err := identify(st)
	if err != nil {
		_ = unix.Close(fd)
		return File{}, err
	}
	return File{fd, id, modes}, nil
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

// isRemoved reports whether a directory that was found a moment ago is being removed: it has no
// name.
func isRemoved(dir fs.FileInfo) bool {
	st, ok := dir.Sys().(*syscall.Stat_t)
	return ok && st.Nlink == 0
}
