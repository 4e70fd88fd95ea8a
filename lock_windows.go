package fasteners

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/windows"

	"github.com/go-fasteners/fasteners/internal/event"
	"github.com/go-fasteners/fasteners/internal/table"
)

// idleTimeout is 0: an open handle would keep users from removing the directory of a lock file that
// nobody holds.
const idleTimeout = 0

// system is the file system, as the table sees it.
type system struct{}

func (*system) Identify(path string) (table.ID, error) {
	info, err := stat(path)
	if err != nil {
		return table.ID{}, err
	}
	return identify(info)
}

func (*system) SameFile(path string, id table.ID) (bool, error) {
	info, err := stat(path)
	switch {
	case err == nil:
		return id == idOf(info), nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, errDevice):
		return false, nil
	}
	return false, err
}

func (*system) open(path string, modes table.Mode) (table.File, table.ID, error) {
	return openFile(path, modes, windows.OPEN_EXISTING, 0)
}

func (*system) create(path string, perm fs.FileMode) (table.File, table.ID, error) {
	// Else the name without it would become a directory, for nothing.
	if strings.TrimRight(path, `\/`) != path {
		return nil, table.ID{}, fmt.Errorf("path ends in a separator: %w", fs.ErrInvalid)
	}
	attributes := uint32(windows.FILE_ATTRIBUTE_NORMAL)
	if perm&0o200 == 0 {
		attributes = windows.FILE_ATTRIBUTE_READONLY
	}
	return openFile(path, table.Shared|table.Exclusive, windows.OPEN_ALWAYS, attributes)
}

// Watch passes a wake-up on if the caller stops without the lock: it took that from the others who wait
// in its mode. A reader passes it on in any case, since they can hold the lock together.
func (*system) Watch(id table.ID, mode table.Mode) (released <-chan struct{}, stop func(locked bool)) {
	name := eventName(id, mode)
	w := event.New(name)
	return w.C, func(locked bool) {
		if woken := w.Stop(); woken && (!locked || mode == table.Shared) {
			event.Signal(name)
		}
	}
}

func (*system) Sleep(d time.Duration) { time.Sleep(d) }

func mayPermitLess(err error) bool {
	return err == windows.ERROR_ACCESS_DENIED || err == windows.ERROR_WRITE_PROTECT
}

// A file is an open lock file.
type file struct {
	handle windows.Handle
	modes  table.Mode // that it permits
	id     table.ID

	locks   int  // on the main byte
	pending bool // is locked
}

func openFile(path string, modes table.Mode, disposition, attributes uint32) (table.File, table.ID, error) {
	// Others may read and write, but without FILE_SHARE_DELETE nobody can remove, rename or replace the
	// file while it is open here, which it is as long as somebody holds the lock or is the next to get
	// it: he would get ERROR_SHARING_VIOLATION. That keeps the name and the lock together, where all that
	// other systems can do is to find out when they have come apart.
	const share = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE
	access := uint32(0)
	if modes&table.Shared != 0 {
		access |= windows.GENERIC_READ
	}
	// The right to read would do for LockFileEx here too, but elsewhere who may only read cannot keep
	// other readers out.
	if modes&table.Exclusive != 0 {
		access |= windows.GENERIC_WRITE
	}
	h, err := open(path, access, share, disposition, attributes)
	if err != nil {
		return nil, table.ID{}, err
	}
	f := &file{handle: h, modes: modes}
	info, err := statHandle(h)
	if err == nil {
		f.id, err = identify(info)
	}
	if err != nil {
		_ = f.Close()
		return nil, table.ID{}, err
	}
	return f, f.id, nil
}

// open has no security attributes for CreateFile, so that no child inherits the handle.
func open(path string, access, share, disposition, flags uint32) (windows.Handle, error) {
	// What os does for its own calls: before Windows 10 1703, only this form of a path may have more than
	// 259 characters.
	if abs, err := filepath.Abs(path); err == nil && len(abs) >= windows.MAX_PATH-len(`\12345678.123`) {
		switch {
		case strings.HasPrefix(abs, `\\?\`), strings.HasPrefix(abs, `\\.\`):
		case strings.HasPrefix(abs, `\\`):
			path = `\\?\UNC` + abs[1:]
		default:
			path = `\\?\` + abs
		}
	}
	// The streams of a file are locked each for itself, but have one identity.
	if strings.Contains(path[len(filepath.VolumeName(path)):], ":") {
		return 0, fmt.Errorf("path names a stream of a file: %w", fs.ErrInvalid)
	}
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return 0, err
	}
	return windows.CreateFile(name, access, share, nil, disposition, flags, 0)
}

func (f *file) Permits(mode table.Mode) bool { return f.modes&mode != 0 }

func (f *file) Close() error { return windows.CloseHandle(f.handle) }

// stat is about whatever path names. It needs no access to the file, so it prevents nobody from opening
// it. CreateFile can take long enough for the runtime to start a thread for each goroutine that calls it,
// so only some of them may do so at a time.
func stat(path string) (*windows.ByHandleFileInformation, error) {
	statSlots <- struct{}{}
	defer func() { <-statSlots }()
	const share = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE
	// Without backup semantics a directory cannot be opened: ERROR_ACCESS_DENIED.
	h, err := open(path, 0, share, windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS)
	if err != nil {
		return nil, err
	}
	defer windows.CloseHandle(h)
	return statHandle(h)
}

var statSlots = make(chan struct{}, 8)

var errDevice = fmt.Errorf("not a regular file but a device: %w", fs.ErrInvalid)

func statHandle(h windows.Handle) (*windows.ByHandleFileInformation, error) {
	// Names such as NUL and CON are devices in every directory.
	if kind, err := windows.GetFileType(h); err != nil {
		return nil, err
	} else if kind != windows.FILE_TYPE_DISK {
		return nil, errDevice
	}
	info := new(windows.ByHandleFileInformation)
	err := windows.GetFileInformationByHandle(h, info)
	return info, err
}

// identify returns the identity of a regular file.
func identify(info *windows.ByHandleFileInformation) (table.ID, error) {
	if info.FileAttributes&windows.FILE_ATTRIBUTE_DIRECTORY != 0 {
		return table.ID{}, fmt.Errorf("not a regular file: %w", syscall.EISDIR)
	}
	id := idOf(info)
	if id.File == 0 || id.File == 1<<64-1 {
		// All files would be taken for one.
		return id, fmt.Errorf("file system does not number its files: %w", errors.ErrUnsupported)
	}
	return id, nil
}

func idOf(info *windows.ByHandleFileInformation) table.ID {
	return table.ID{
		Volume: uint64(info.VolumeSerialNumber),
		File:   uint64(info.FileIndexHigh)<<32 | uint64(info.FileIndexLow),
	}
}
