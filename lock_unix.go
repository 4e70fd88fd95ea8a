//go:build unix

package fasteners

import (
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners/internal/fcntl"
	"github.com/go-fasteners/fasteners/internal/stat"
	"github.com/go-fasteners/fasteners/internal/table"
)

// idleTimeout is how long the descriptor of a free lock stays open: opening and closing a file costs more
// than locking it. With a longer time, a process that uses many lock files in turn would have more of
// them open at once.
const idleTimeout = time.Millisecond

// system is the file system, as the table sees it.
type system struct{}

func (*system) Identify(path string) (table.ID, error) {
	st, err := stat.Path(path)
	if err != nil {
		return table.ID{}, retryIfStale(err)
	}
	return identify(st)
}

func (*system) SameFile(path string, id table.ID) (bool, error) {
	st, err := stat.Path(path)
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
	return open(path, access, modes, 0)
}

func (*system) create(path string, perm fs.FileMode) (table.File, table.ID, error) {
	return open(path, unix.O_RDWR|unix.O_CREAT, table.Shared|table.Exclusive, perm)
}

// Watch returns no channel: nothing tells a process that polls of a release.
func (*system) Watch(table.ID, table.Mode) (released <-chan struct{}, stop func(bool)) {
	return nil, func(bool) {}
}

// Sleep takes a thread for that time: on Linux the runtime waits for timers in whole milliseconds (see
// BenchmarkSleep). A signal may end it early.
func (*system) Sleep(d time.Duration) {
	timeout := unix.NsecToTimeval(d.Nanoseconds())
	_, _ = unix.Select(0, nil, nil, nil, &timeout)
}

// mayPermitLess reports whether a file that could not be opened for readers and writers may still be
// opened for one of them. ETXTBSY is about a program that runs: it cannot be opened for writing.
func mayPermitLess(err error) bool {
	return err == unix.EACCES || err == unix.EPERM || err == unix.EROFS || err == unix.ETXTBSY
}

// retryIfStale makes ESTALE a reason to start over: on a network file system it says that the file has
// been removed since its path was looked up.
func retryIfStale(err error) error {
	if err == unix.ESTALE {
		return fmt.Errorf("%w: %w", table.ErrRetry, err)
	}
	return err
}

func open(path string, flags int, modes table.Mode, perm fs.FileMode) (table.File, table.ID, error) {
	// O_APPEND is for files that may only be appended to (chattr(1), +a): they can be opened for writing
	// in no other way. Should the path name a FIFO by now, O_NONBLOCK keeps open from waiting for the
	// other end, and O_NOCTTY a terminal from becoming that of the process.
	flags |= unix.O_APPEND | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY
	fd, err := unix.Open(path, flags, uint32(perm))
	for err == unix.EINTR {
		fd, err = unix.Open(path, flags, uint32(perm))
	}
	if err == unix.EAGAIN {
		// There is a lease on the file, as file servers have. To wait for the holder of the lease,
		// without O_NONBLOCK, would not end with a context.
		err = table.ErrBusy
	}
	if err != nil {
		return nil, table.ID{}, retryIfStale(err)
	}
	var id table.ID
	st, err := stat.FD(fd)
	if err == nil {
		id, err = identify(st)
	}
	f := &file{Descriptor: fcntl.New(fd, st.Dev), modes: modes}
	f.plain = f.OwnRangesConflict()
	if err != nil {
		_ = f.Close()
		return nil, table.ID{}, retryIfStale(err)
	}
	return f, id, nil
}

// Close does not try again after EINTR: by then the descriptor may be that of another file.
func (f *file) Close() error {
	err := unix.Close(f.FD)
	if err == unix.EINTR {
		return nil
	}
	return err
}

// identify returns the identity of a regular file. It refuses all other files before they are opened:
// opening alone can rewind a tape or arm a watchdog.
func identify(st stat.File) (table.ID, error) {
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

func idOf(st stat.File) table.ID { return table.ID{Volume: st.Dev, File: st.Ino} }
