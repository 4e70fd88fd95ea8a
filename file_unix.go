//go:build unix

package fasteners

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners/internal/posix"
	"github.com/go-fasteners/fasteners/internal/table"
)

func (*system) Identify(path string) (table.ID, error) {
	st, err := posix.Stat(path)
	if err != nil {
		return table.ID{}, retryIfStale(err)
	}
	return identify(st)
}

func (*system) SameFile(path string, id table.ID) (bool, error) {
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

// open does not use O_CREAT: on a file of another user in a sticky directory, such as /tmp, that can fail
// even if the file exists (fs.protected_regular, proc(5)).
func (*system) open(path string, modes table.Mode) (table.File, table.ID, error) {
	access := unix.O_RDWR
	switch modes {
	case table.Shared:
		access = unix.O_RDONLY
	case table.Exclusive:
		access = unix.O_WRONLY
	}
	return openFile(path, access, modes, 0)
}

func (*system) create(path string, perm fs.FileMode) (table.File, table.ID, error) {
	return openFile(path, unix.O_RDWR|unix.O_CREAT, table.Shared|table.Exclusive, perm)
}

// mayPermitLess reports whether a file that could not be opened for both readers and writers may be opened
// for one of them. ETXTBSY says that the file is a running program, which cannot be opened for writing.
func mayPermitLess(err error) bool {
	return err == unix.EACCES || err == unix.EPERM || err == unix.EROFS || err == unix.ETXTBSY
}

// retryIfStale makes acquiring start over after ESTALE: on a network file system that says that the file
// has been removed since its path was resolved.
func retryIfStale(err error) error {
	if err == unix.ESTALE {
		return fmt.Errorf("%w: %w", table.ErrRetry, err)
	}
	return err
}

func openFile(path string, flags int, modes table.Mode, perm fs.FileMode) (table.File, table.ID, error) {
	// Files that may only be appended to (chattr +a) can be opened for writing only with O_APPEND. If the
	// path names a FIFO by now, O_NONBLOCK keeps open from waiting for the other end, and O_NOCTTY a
	// terminal from becoming the controlling terminal of the process.
	flags |= unix.O_APPEND | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY
	fd, err := unix.Open(path, flags, uint32(perm))
	for err == unix.EINTR {
		fd, err = unix.Open(path, flags, uint32(perm))
	}
	if err == unix.EAGAIN {
		// Another process has a lease on the file, as file servers do. Without O_NONBLOCK open would wait
		// until that is given up, whatever the context says.
		err = table.ErrBusy
	}
	if err != nil {
		return nil, table.ID{}, retryIfStale(err)
	}
	f, id, err := newFile(fd, modes)
	if err != nil {
		return nil, table.ID{}, retryIfStale(err)
	}
	return f, id, nil
}

// newFile returns the open file of a descriptor, which it closes if that is not a regular file.
func newFile(fd int, modes table.Mode) (*file, table.ID, error) {
	var id table.ID
	st, err := posix.Fstat(fd)
	if err == nil {
		id, err = identify(st)
	}
	f := &file{Descriptor: posix.New(fd, st.Dev), modes: modes}
	f.plain = f.OwnRangesConflict()
	if err != nil {
		_ = f.Close()
		return nil, table.ID{}, err
	}
	return f, id, nil
}

// openInherited returns another descriptor of the open file description of f. It does not open or close any if
// locks belong to the process: that would drop those of other goroutines.
func openInherited(f *os.File, mode table.Mode) (table.File, table.ID, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, table.ID{}, err
	}
	fd, modes := -1, table.Mode(0)
	var dupErr error
	err = conn.Control(func(original uintptr) { // Fd could make the description blocking
		fd, modes, dupErr = duplicate(original)
	})
	if err = errors.Join(err, dupErr); err != nil {
		return nil, table.ID{}, err
	}
	own, id, err := newFile(fd, modes)
	if err != nil {
		return nil, table.ID{}, err
	}
	own.given = true
	if !own.Permits(mode) {
		_ = own.Close()
		return nil, table.ID{}, fmt.Errorf("file is not open for a lock that is %v: %w", mode, fs.ErrPermission)
	}
	return own, id, nil
}

// duplicate duplicates a descriptor through which a lock does not belong to the process. It also returns the
// modes that the descriptor permits.
func duplicate(fd uintptr) (int, table.Mode, error) {
	d := posix.New(int(fd), 0)
	_, err := d.Conflict(unix.F_WRLCK, posix.Whole)
	if err == nil && d.OwnedByProcess() {
		err = errOwnedByProcess
	}
	if err != nil {
		return -1, 0, err
	}
	flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
	if err != nil {
		return -1, 0, err
	}
	modes := table.Shared | table.Exclusive
	switch flags & unix.O_ACCMODE {
	case unix.O_RDONLY:
		modes = table.Shared
	case unix.O_WRONLY:
		modes = table.Exclusive
	}
	own, err := posix.Duplicate(fd)
	return own, modes, err
}

// identify returns the identity of a regular file. Other files are refused before they are opened: opening
// alone can rewind a tape, or start a watchdog.
func identify(st posix.FileInfo) (table.ID, error) {
	kind := "file of unknown type"
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return idOf(st), nil
	case unix.S_IFDIR:
		return table.ID{}, fmt.Errorf("not a regular file: %w", syscall.EISDIR)
	case unix.S_IFIFO:
		kind = "named pipe"
	case unix.S_IFSOCK:
		kind = "socket"
	case unix.S_IFCHR, unix.S_IFBLK:
		kind = "device"
	}
	return table.ID{}, fmt.Errorf("not a regular file but a %s: %w", kind, fs.ErrInvalid)
}

func idOf(st posix.FileInfo) table.ID { return table.ID{Volume: st.Dev, File: st.Ino} }
