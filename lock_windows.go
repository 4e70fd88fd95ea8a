package fasteners

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/windows"

	"github.com/go-fasteners/fasteners/internal/claim"
	"github.com/go-fasteners/fasteners/internal/table"
	"github.com/go-fasteners/fasteners/internal/wake"
)

// An open handle stops people from removing the directory of the lock file, so a lock
// that is free has none.
const linger = 0

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// system is the file system, as the table sees it.
type system struct{}

func (*system) Identify(path string) (table.ID, error) {
	info, err := stat(path)
	if err != nil {
		return table.ID{}, err
	}
	return identify(info)
}

func (*system) Names(path string, id table.ID) (bool, error) {
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

func (*system) Claim(id table.ID) (drop func()) { return claim.Make(id.Volume, id.File) }
func (*system) Claimed(id table.ID) bool        { return claim.Made(id.Volume, id.File) }
func (*system) Sleep(d time.Duration)           { wake.Sleep(d) }

func isPermission(err error) bool {
	return err == windows.ERROR_ACCESS_DENIED || err == windows.ERROR_WRITE_PROTECT
}

// A file is an open lock file.
type file struct {
	handle windows.Handle
	modes  table.Mode // that it permits
	id     table.ID
	mode   table.Mode // last tried
	locks  int        // on the room
	gated  bool       // the gate is locked
}

func openFile(path string, modes table.Mode, disposition, attributes uint32) (table.File, table.ID, error) {
	// Others may read and write, but without FILE_SHARE_DELETE nobody can remove,
	// rename or replace the file while it is open here, which it is as long as
	// somebody holds the lock or is the next to get it: he would get
	// ERROR_SHARING_VIOLATION. That keeps the name and the lock together, where all
	// that other systems can do is to find out when they have come apart.
	const share = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE
	access := uint32(0)
	if modes&table.Shared != 0 {
		access |= windows.GENERIC_READ
	}
	// The right to read would do for LockFileEx here too, but elsewhere who may only read
	// cannot keep other readers out.
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
	// What os does for its own calls: before Windows 10 1703, only this form of a path
	// may have more than 259 characters.
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

func (f *file) Try(mode table.Mode) (bool, error) {
	f.mode = mode
	if mode == table.Shared {
		gated, err := f.Gated()
		if gated || err != nil {
			return false, err
		}
	}
	return f.enter(mode, windows.LOCKFILE_FAIL_IMMEDIATELY)
}

// Wait is for those who never give up. The call could be cancelled only if it were an
// overlapped one. But that may just have locked the file; and Wine 8 never completes it (seen
// 2026-11-23).
func (f *file) Wait(mode table.Mode) (bool, error) {
	f.mode = mode
	if mode == table.Shared {
		return f.waitAtGate()
	}
	return f.enter(mode, 0)
}

// enter locks the room.
func (f *file) enter(mode table.Mode, flags uint32) (bool, error) {
	ok, err := f.lock(room, flags|lockFlags(mode))
	if ok {
		f.locks++
	}
	return ok, err
}

func (f *file) Unlock() error {
	if f.locks == 0 && !f.gated {
		return nil // to unlock what is not locked is an error
	}
	var err error
	for ; f.locks > 0; f.locks-- {
		err = errors.Join(err, f.unlock(room))
	}
	if f.gated {
		f.gated = false
		err = errors.Join(err, f.unlock(gate))
	}
	wake.Signal(eventName(f.id, table.Exclusive))
	wake.Signal(eventName(f.id, table.Shared))
	return err
}

// Quiet cannot tell who keeps us out.
func (f *file) Quiet(table.Mode) bool { return true }

func (f *file) Close() error { return windows.CloseHandle(f.handle) }

// Watch is for one who has tried.
func (f *file) Watch() table.Watch {
	name := eventName(f.id, f.mode)
	return watch{wake.New(name), f, name}
}

type watch struct {
	*wake.Watch
	file *file
	name string
}

// Stop passes on the wake-up that this one took from the others who wait in its mode, unless it has
// become the one whom they wait for.
func (w watch) Stop() {
	if woken := w.Watch.Stop(); woken && (w.file.locks == 0 || w.file.mode == table.Shared) {
		wake.Signal(w.name)
	}
}

// lock locks the byte at offset. One lock of a handle does not exclude another one of it if
// that is shared, but comes on top.
func (f *file) lock(offset uint64, flags uint32) (bool, error) {
	err := windows.LockFileEx(f.handle, flags, 0, 1, 0, at(offset))
	if err == windows.ERROR_LOCK_VIOLATION {
		return false, nil
	}
	return err == nil, err
}

func (f *file) unlock(offset uint64) error {
	return windows.UnlockFileEx(f.handle, 0, 1, 0, at(offset))
}

func at(offset uint64) *windows.Overlapped {
	return &windows.Overlapped{Offset: uint32(offset), OffsetHigh: uint32(offset >> 32)}
}

// stat is about whatever path names. It needs no access to the file, and so gets in
// nobody's way.
//
// CreateFile can take long enough for the runtime to start a thread for each goroutine
// that calls it. So all who ask for the same path while a call is under way share the
// next: its answer is not from before they asked, which who has just got a lock relies on.
func stat(path string) (*windows.ByHandleFileInformation, error) {
	looks.Lock()
	before := looks.latest[path]
	if before != nil && !before.begun {
		looks.Unlock()
		<-before.done
		return before.info, before.err
	}
	l := &look{done: make(chan struct{})}
	looks.latest[path] = l
	if before != nil {
		looks.Unlock()
		<-before.done
		looks.Lock()
	}
	l.begun = true
	looks.Unlock()

	l.info, l.err = l.at(path)

	looks.Lock()
	if looks.latest[path] == l {
		delete(looks.latest, path)
	}
	looks.Unlock()
	close(l.done)
	return l.info, l.err
}

// A look is one call for all who wait for it. For each path one is under way at most, and
// one more waits for that.
type look struct {
	begun bool          // nobody may join
	done  chan struct{} // closed when info and err are there
	info  *windows.ByHandleFileInformation
	err   error
}

var looks = struct {
	sync.Mutex // protects latest, and begun of each
	latest     map[string]*look
}{latest: make(map[string]*look)}

func (*look) at(path string) (*windows.ByHandleFileInformation, error) {
	const share = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE
	// Without backup semantics, to open a directory is said to be denied.
	h, err := open(path, 0, share, windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS)
	if err != nil {
		return nil, err
	}
	defer windows.CloseHandle(h)
	return statHandle(h)
}

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
