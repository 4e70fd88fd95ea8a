package lockfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/windows"

	"github.com/go-fasteners/fasteners/internal/locktable"
)

// A Handle is a handle of the file.
type Handle = windows.Handle

// Identify returns the identity of the lock file that path names: see [locktable.System].
func Identify(path string) (locktable.ID, error) {
	info, err := stat(path)
	if err != nil {
		return locktable.ID{}, err
	}
	return identify(info)
}

// SameFile reports whether path names the file id: see [locktable.System].
func SameFile(path string, id locktable.ID) (bool, error) {
	info, err := stat(path)
	switch {
	case err == nil:
		return id == idOf(info), nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, errDevice):
		return false, nil
	}
	return false, err
}

func open(path string, modes locktable.Mode) (File, error) {
	return openFile(path, modes, windows.OPEN_EXISTING, 0)
}

// create does without permissions: new files have those that their directory gives them. With
// FILE_FLAG_OPEN_REPARSE_POINT a symbolic link of that name exists, also one to nothing.
func create(path string, _ fs.FileMode) (File, error) {
	return openFile(path, locktable.Shared|locktable.Exclusive, windows.CREATE_NEW,
		windows.FILE_ATTRIBUTE_NORMAL|windows.FILE_FLAG_OPEN_REPARSE_POINT)
}

func mkdir(path string) error { return sys.mkdir(path, 0o777) }

// sys are the system calls that tests make fail.
var sys = struct {
	mkdir func(path string, mode uint32) error
}{func(path string, mode uint32) error { return os.Mkdir(path, fs.FileMode(mode)) }}

func explain(err error, _, _ string) error { return err }

func openFile(path string, modes locktable.Mode, disposition, flags uint32) (File, error) {
	// Other processes may read and write the file. But without FILE_SHARE_DELETE, nobody can
	// remove, rename or replace it while it is open here, which it is as long as a goroutine
	// holds the lock or leads: the error is ERROR_SHARING_VIOLATION. Other systems can only
	// detect a replacement.
	const share = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE
	access := uint32(0)
	if modes&locktable.Shared != 0 {
		access |= windows.GENERIC_READ
	}
	// LockFileEx would be content with read access. But on other systems a process that has
	// only that cannot exclude readers.
	if modes&locktable.Exclusive != 0 {
		access |= windows.GENERIC_WRITE
	}
	h, err := createFile(path, access, share, disposition, flags)
	if err != nil {
		return File{}, err
	}
	info, err := statHandle(h)
	if err == nil {
		var id locktable.ID
		if id, err = identify(info); err == nil {
			return File{h, id, modes}, nil
		}
	}
	_ = windows.CloseHandle(h)
	return File{}, err
}

// createFile passes no security attributes to CreateFile, so that no child inherits the handle.
func createFile(path string, access, share, disposition, flags uint32) (windows.Handle, error) {
	// Package os does the same for its own calls: before Windows 10 1703, only this form of a
	// path could have more than 259 characters.
	if abs, err := filepath.Abs(path); err == nil && len(abs) >= windows.MAX_PATH-len(`\12345678.123`) {
		switch {
		case strings.HasPrefix(abs, `\\?\`), strings.HasPrefix(abs, `\\.\`):
		case strings.HasPrefix(abs, `\\`):
			path = `\\?\UNC` + abs[1:]
		default:
			path = `\\?\` + abs
		}
	}
	// The streams of a file have separate locks, but the same identity.
	if strings.Contains(path[len(filepath.VolumeName(path)):], ":") {
		return 0, fmt.Errorf("path names a stream of a file: %w", fs.ErrInvalid)
	}
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return 0, err
	}
	return windows.CreateFile(name, access, share, nil, disposition, flags, 0)
}

// stat returns the information about whatever path names. It requests no access to the file, so
// it prevents nobody from opening it. CreateFile can take so long that the runtime starts a
// thread for each goroutine that calls it, so only a few of them may do so at a time.
func stat(path string) (*windows.ByHandleFileInformation, error) {
	statSlots <- struct{}{}
	defer func() { <-statSlots }()
	const share = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE
	// Without backup semantics a directory cannot be opened: ERROR_ACCESS_DENIED.
	h, err := createFile(path, 0, share, windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS)
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
func identify(info *windows.ByHandleFileInformation) (locktable.ID, error) {
	if info.FileAttributes&windows.FILE_ATTRIBUTE_DIRECTORY != 0 {
		return locktable.ID{}, fmt.Errorf("not a regular file: %w", syscall.EISDIR)
	}
	id := idOf(info)
	if id.File == 0 || id.File == 1<<64-1 {
		// All files would seem to be the same one.
		return id, fmt.Errorf("file system does not number its files: %w", errors.ErrUnsupported)
	}
	return id, nil
}

func idOf(info *windows.ByHandleFileInformation) locktable.ID {
	return locktable.ID{
		Volume: uint64(info.VolumeSerialNumber),
		File:   uint64(info.FileIndexHigh)<<32 | uint64(info.FileIndexLow),
	}
}

func isRemoved(fs.FileInfo) bool { return false }
