//go:build unix

package fasteners

import (
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners/internal/claim"
	"github.com/go-fasteners/fasteners/internal/fcntl"
	"github.com/go-fasteners/fasteners/internal/stat"
	"github.com/go-fasteners/fasteners/internal/table"
	"github.com/go-fasteners/fasteners/internal/wake"
)

// To open and close a file costs more than to lock it. Who waits in another process is
// woken by the close, so he loses this much at most, and only against one who locks and
// releases all the time.
const linger = time.Millisecond

func exists(path string) bool {
	_, err := stat.Path(path)
	return err == nil
}

// system is the file system, as the table sees it.
type system struct{}

func (*system) Identify(path string) (table.ID, error) {
	st, err := stat.Path(path)
	if err != nil {
		return table.ID{}, err
	}
	return identify(st)
}

func (*system) Names(path string, id table.ID) (bool, error) {
	st, err := stat.Path(path)
	switch err {
	case nil:
		return id == idOf(st), nil
	case unix.ENOENT, unix.ENOTDIR, unix.ELOOP:
		return false, nil
	default:
		return false, err
	}
}

// open goes without O_CREAT: on a file of somebody else in a sticky directory, such as /tmp, that
// can fail even if the file is there (fs.protected_regular, proc(5)).
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

func (*system) Claim(id table.ID) (drop func()) { return claim.Make(id.Volume, id.File) }
func (*system) Claimed(id table.ID) bool        { return claim.Made(id.Volume, id.File) }
func (*system) Sleep(d time.Duration)           { wake.Sleep(d) }

func isPermission(err error) bool {
	return err == unix.EACCES || err == unix.EPERM || err == unix.EROFS
}

// A file is an open lock file.
type file struct {
	fcntl.Descriptor
	modes table.Mode // that it permits
}

func open(path string, flags int, modes table.Mode, perm fs.FileMode) (table.File, table.ID, error) {
	// Should the path name a FIFO by now, O_NONBLOCK keeps us from waiting for its
	// other end, and O_NOCTTY a terminal from becoming ours.
	flags |= unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY
	fd, err := unix.Open(path, flags, uint32(perm))
	for err == unix.EINTR {
		fd, err = unix.Open(path, flags, uint32(perm))
	}
	if err == unix.EAGAIN {
		// Of a lease, as file servers have (fcntl(2)). To wait until it is broken,
		// without O_NONBLOCK, would outlast any context.
		err = table.ErrAgain
	}
	if err != nil {
		return nil, table.ID{}, err
	}
	f := &file{fcntl.Descriptor{FD: fd}, modes}

	var id table.ID
	st, err := stat.FD(fd)
	if err == nil {
		id, err = identify(st)
	}
	if err != nil {
		_ = f.Close()
		return nil, table.ID{}, err
	}
	return f, id, nil
}

func (f *file) Permits(mode table.Mode) bool { return f.modes&mode != 0 }

func (f *file) Try(mode table.Mode) (bool, error) {
	if mode == table.Shared {
		return f.admit(f.Descriptor.Try(unix.F_RDLCK, fcntl.Whole))
	}
	return f.Descriptor.Try(unix.F_WRLCK, fcntl.Whole)
}

func (f *file) Wait(mode table.Mode) (bool, error) {
	if mode == table.Shared {
		return f.admit(f.Descriptor.Wait(unix.F_RDLCK, fcntl.Whole))
	}
	return f.Descriptor.Wait(unix.F_WRLCK, fcntl.Whole)
}

func (f *file) Unlock() error {
	return f.Descriptor.Unlock(fcntl.Whole)
}

// Quiet takes who has the lock in our form for one of us.
func (f *file) Quiet(mode table.Mode) bool {
	typ := int16(unix.F_WRLCK)
	if mode == table.Shared {
		typ = unix.F_RDLCK
	}
	_, classic, err := f.Test(typ, fcntl.Whole)
	return classic || err != nil
}

// Close does not try again after EINTR: by then the descriptor may be another one's.
func (f *file) Close() error {
	err := unix.Close(f.FD)
	wake.Tidy()
	if err == unix.EINTR {
		return nil
	}
	return err
}

func (f *file) Watch() table.Watch {
	w := wake.New(f.FD)
	f.Local = w.Complete()
	return w
}

// identify returns the identity of a regular file. It refuses all else before it is
// opened, as that alone can rewind a tape or arm a watchdog.
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
