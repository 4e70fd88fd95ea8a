package fasteners

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners/internal/locktable"
	"github.com/go-fasteners/fasteners/internal/posix"
	"github.com/go-fasteners/fasteners/internal/tag"
)

// A stranger locks the file of a test through an open file description of its own. It excludes
// all others, whatever the form of their locks.
type stranger struct {
	t    *testing.T
	path string
	fd   uintptr
}

func newStranger(t *testing.T) stranger {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return stranger{t, path, f.Fd()}
}

// open opens the file as the package does.
func (s stranger) open() *file {
	s.t.Helper()
	f, _, err := new(system).Open(s.path, locktable.Exclusive)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { f.Close() })
	return f.(*file)
}

// lock locks r, or unlocks it. It has to succeed.
func (s stranger) lock(typ int16, r posix.Range) {
	s.t.Helper()
	if err := unix.FcntlFlock(s.fd, unix.F_OFD_SETLK, &unix.Flock_t{Type: typ, Start: r.Start, Len: r.Len}); err != nil {
		s.t.Fatal(err)
	}
}

// checkLocked checks how others have locked any part of the file: F_UNLCK is not at all.
func (s stranger) checkLocked(typ int16) {
	s.t.Helper()
	lk := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(s.fd, unix.F_OFD_GETLK, &lk); err != nil || lk.Type != typ {
		s.t.Errorf("locked with type %d, %v; want %d", lk.Type, err, typ)
	}
}

// An errnoCase is a method of file, and the calls of fcntl(2) that fail meanwhile.
type errnoCase struct {
	name  string
	fails func(cmd int, typ int16) bool
	setUp func(s stranger, f *file)
	do    func(t *testing.T, f *file) (ok bool, err error)
	left  int16 // how the file is locked then, before Unlock
}

const notChecked = -1 // it can have locked pending

func isAsk(cmd int, _ int16) bool { return cmd == unix.F_OFD_GETLK || cmd == unix.F_GETLK }

func isLock(cmd int, typ int16) bool { return !isAsk(cmd, typ) && typ != unix.F_UNLCK }
func isUnlock(_ int, typ int16) bool { return typ == unix.F_UNLCK }

var errnoCases = []errnoCase{
	{"try exclusive", isLock, nil, tryLock(locktable.Exclusive), unix.F_UNLCK},
	{"try shared", isLock, nil, tryLock(locktable.Shared), unix.F_UNLCK},
	{"try shared, unlock", isUnlock, nil, tryLock(locktable.Shared), unix.F_RDLCK},
	{"wait exclusive", isLock, nil, wait(locktable.Exclusive), unix.F_UNLCK},
	{"wait shared", isLock, nil, wait(locktable.Shared), unix.F_UNLCK},
	{"wait shared, unlock", isUnlock, nil, wait(locktable.Shared), unix.F_RDLCK},
	{"lock pending", isLock, otherReader, lockPending, notChecked},
	{"lock pending, ask", isAsk, otherReader, lockPending, notChecked},
	{"pending", isAsk, otherReader, func(_ *testing.T, f *file) (bool, error) { return f.Pending() }, notChecked},
	{"downgrade", isLock, locked, downgrade, unix.F_WRLCK},
	{"downgrade, unlock", isUnlock, lockedWithPending, downgrade, unix.F_WRLCK},
	{"unlock", isUnlock, locked, unlockFile, unix.F_WRLCK},
}

func tryLock(mode locktable.Mode) func(*testing.T, *file) (bool, error) {
	return func(_ *testing.T, f *file) (bool, error) { return f.TryLock(mode) }
}

func wait(mode locktable.Mode) func(*testing.T, *file) (bool, error) {
	return func(t *testing.T, f *file) (bool, error) {
		err := f.Wait(t.Context(), mode)
		return err == nil, err
	}
}

func lockPending(_ *testing.T, f *file) (bool, error) {
	err := f.LockPending()
	return f.pending && err == nil, err
}

func unlockFile(_ *testing.T, f *file) (bool, error) { err := f.Unlock(); return err == nil, err }
func downgrade(_ *testing.T, f *file) (bool, error)  { err := f.Downgrade(); return err == nil, err }
func otherReader(s stranger, _ *file)                { s.lock(unix.F_RDLCK, posix.Range{Start: 0, Len: 10}) }
func locked(s stranger, f *file)                     { mustLock(s.t, f, locktable.Exclusive) }

func lockedWithPending(s stranger, f *file) {
	otherReader(s, f)
	if err := f.LockPending(); err != nil || !f.pending {
		s.t.Fatal(f.pending, err)
	}
	s.lock(unix.F_UNLCK, posix.Whole)
	locked(s, f)
}

// wantErrno says what a method returns if its calls fail with that errno.
func wantErrno(errno unix.Errno, c errnoCase) (target error, unsupported bool) {
	switch errno {
	case unix.ESTALE:
		return locktable.ErrRetry, false
	case unix.EAGAIN: // the lock is held
		switch c.name {
		case "try exclusive", "try shared", "lock pending":
			return nil, false
		case "wait exclusive", "wait shared": // the caller polls
			return errors.ErrUnsupported, true
		}
	case unix.EACCES: // nobody holds the lock, so it is a refusal
		return fs.ErrPermission, false
	case 512:
		return unix.EINTR, false
	case unix.ENOSYS, unix.EOPNOTSUPP, unix.ENOTTY, unix.EINVAL:
		return errno, true
	}
	return errno, false
}

// Whatever a lock call fails with is returned at once, in an error that says if the file system
// has no locks; and then nothing stays locked. But EAGAIN says that the lock is held.
func TestErrnos(t *testing.T) {
	for _, c := range errnoCases {
		t.Run(c.name, func(t *testing.T) {
			s := newStranger(t)
			for errno := unix.Errno(1); errno <= 512; errno++ {
				if errno == 134 {
					errno = 512 // there are none in between
				}
				f := s.open()
				if strings.HasPrefix(c.name, "wait") && f.OwnedByProcess() {
					return // nobody waits in the kernel
				}
				if c.setUp != nil {
					c.setUp(s, f)
				}
				interruptions := 0
				posix.Fault = func(cmd int, typ int16) error {
					if !c.fails(cmd, typ) {
						return nil
					}
					if interruptions++; errno == unix.EINTR && interruptions > 3 {
						return nil
					}
					return errno
				}
				ok, err := c.do(t, f)
				posix.Fault = nil
				target, unsupported := wantErrno(errno, c)
				switch {
				case errno == unix.EINTR:
					if err != nil {
						t.Errorf("%v: %v", errno, err)
					}
				case target == nil && (ok || err != nil), target != nil && (!errors.Is(err, target) || ok),
					errors.Is(err, errors.ErrUnsupported) != unsupported:
					t.Errorf("%v (%d): %v, %v; want %v, unsupported: %t", errno, errno, ok, err, target, unsupported)
				}
				if errno != unix.EINTR && c.left != notChecked {
					s.checkLocked(c.left)
				}
				mustUnlock(t, f)
				s.checkLocked(unix.F_UNLCK)
				s.lock(unix.F_UNLCK, posix.Whole)
				f.Close()
			}
		})
	}
}

// ENOLCK means that there are no locks if it is a server that says so, and to questions, too.
func TestENOLCK(t *testing.T) {
	for name, test := range map[string]struct {
		local, asks, unsupported bool
	}{
		"local, table of locks full":        {true, true, false},
		"local, asking fails, too":          {true, false, false},
		"table of locks of the server full": {false, true, false},
		"no server for locks":               {false, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			path := newStranger(t).path
			if !test.local {
				path = "/proc/self/status" // on a file system that is not known to be local
			}
			opened, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer opened.Close()
			f := &file{Descriptor: posix.New(int(opened.Fd()), 0)}
			posix.Fault = func(cmd int, typ int16) error {
				if isAsk(cmd, typ) && test.asks {
					return nil
				}
				return unix.ENOLCK
			}
			ok, err := f.TryLock(locktable.Shared)
			posix.Fault = nil
			if ok || !errors.Is(err, unix.ENOLCK) || errors.Is(err, errors.ErrUnsupported) != test.unsupported {
				t.Errorf("try: %t, %v; want unsupported: %t", ok, err, test.unsupported)
			}
		})
	}
}

// openShared returns two files of one open file description, as WithFile opens them.
func (s stranger) openShared() (a, b *file) {
	s.t.Helper()
	was := posix.ForceProcessOwned.Swap(false)
	s.t.Cleanup(func() { posix.ForceProcessOwned.Store(was) })
	f, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { f.Close() })
	var files []*file
	for range 2 {
		own, _, err := openGiven(f, locktable.Exclusive)
		if err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(func() { own.Close() })
		files = append(files, own.(*file))
	}
	return files[0], files[1]
}

// An errno costs nobody the lock that is held through the same open file description.
func TestErrnosWithSharedDescription(t *testing.T) {
	for mode, typ := range map[locktable.Mode]int16{0: unix.F_UNLCK, locktable.Shared: unix.F_RDLCK, locktable.Exclusive: unix.F_WRLCK} {
		for _, c := range errnoCases {
			if c.setUp != nil {
				continue // they need the lock, or do nothing here
			}
			t.Run(fmt.Sprintf("%s/%d", c.name, mode), func(t *testing.T) {
				s := newStranger(t)
				a, b := s.openShared()
				if mode != 0 {
					mustLock(t, a, mode)
				}
				for errno := unix.Errno(1); errno < 134; errno++ {
					if errno == unix.EINTR {
						continue
					}
					posix.Fault = func(cmd int, typ int16) error {
						if c.fails(cmd, typ) {
							return errno
						}
						return nil
					}
					ok, err := c.do(t, b)
					posix.Fault = nil
					if c.left != unix.F_UNLCK { // a reader that does not tell who it is
						if !ok || err != nil {
							t.Errorf("%v: %v, %v", errno, ok, err)
						}
						s.checkLocked(unix.F_RDLCK)
						mustUnlock(t, b)
						if mode != 0 {
							mustLock(t, a, mode)
						}
						continue
					}
					if ok || err == nil && errno != unix.EAGAIN {
						t.Errorf("%v: %v, %v", errno, ok, err)
					}
					mustUnlock(t, b)
					s.checkLocked(typ)
				}
			})
		}
	}
}

// A downgrade admits readers, even if the lock was longer as another process with the same open
// file description had it.
func TestDowngradeOfLongerLock(t *testing.T) {
	s := newStranger(t)
	a, b := s.openShared()
	other := s.open()
	if ok, err := a.Descriptor.TryLock(unix.F_WRLCK, posix.Range{Start: 0, Len: mainBase + int64(tag.Max) - 2}); !ok || err != nil {
		t.Fatal(ok, err)
	}
	mustLock(t, b, locktable.Exclusive)
	if err := b.Downgrade(); err != nil {
		t.Fatal(err)
	}
	mustLock(t, other, locktable.Shared)
	if ok, err := other.TryLock(locktable.Exclusive); ok || err != nil {
		t.Error(ok, err)
	}
}

// A descriptor that others may have is not used for another hold: they could lock it, and this
// process would not notice.
func TestLentDescriptor(t *testing.T) {
	s := newStranger(t)
	was := posix.ForceProcessOwned.Swap(false)
	defer posix.ForceProcessOwned.Store(was)
	f := s.open()
	mustLock(t, f, locktable.Exclusive)
	lent, err := f.Duplicate()
	if err != nil {
		t.Fatal(err)
	}
	defer lent.Close()
	if !f.Permits(locktable.Shared) {
		t.Error("the holder may not use its descriptor")
	}
	mustUnlock(t, f)
	if f.Permits(locktable.Exclusive) || f.Permits(locktable.Shared) {
		t.Error("a descriptor that was lent would be used again")
	}
}
