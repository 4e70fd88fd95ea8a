//go:build unix

package lockfile_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/internal/lockfile"
	"github.com/go-fasteners/fasteners/internal/locktable"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// mustClose closes a file that nobody has locked.
func mustClose(t *testing.T, f lockfile.File) {
	t.Helper()
	must(t, unix.Close(f.Handle))
}

// withoutUnnamed makes a system of this one that cannot create a file without a name, as all others
// are but Linux, and as Linux is on many file systems.
func withoutUnnamed(t *testing.T, dir string) {
	lockfile.SetOpen(t, dir, func(_ string, flags int, open func() (int, error)) (int, error) {
		if isUnnamed(flags) {
			return -1, unix.EOPNOTSUPP
		}
		return open()
	})
}

func isUnnamed(flags int) bool { return unnamed != 0 && flags&unnamed == unnamed }

const restart = unix.Errno(512) // ERESTARTSYS, errno.h of Linux itself

// A directory has a say in the permissions of new files.
type directory struct {
	name    string
	prepare func(dir string) error
	acl     bool        // takes the place of the umask
	less    fs.FileMode // that a file does not have there by the ACL, without WithFileMode
}

var directories = []directory{
	{"plain", func(string) error { return nil }, false, 0},
	{"setgid", func(dir string) error { return os.Chmod(dir, 0o777|fs.ModeSetgid) }, false, 0},
	{"sticky", func(dir string) error { return os.Chmod(dir, 0o777|fs.ModeSticky) }, false, 0},
}

// A new file has the mode that it is to have, and before that it never has more, nor less where the
// system can do that.
func TestModes(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	for _, umask := range []fs.FileMode{0, 0o022, 0o077, 0o377} {
		for _, perm := range []fs.FileMode{0, 0o600, 0o640, 0o660, 0o666} {
			for _, dirs := range directories {
				for _, named := range []bool{false, true} {
					name := fmt.Sprintf("umask %03o/mode %03o/%s/named from the beginning %t", umask, perm, dirs.name, named)
					t.Run(name, func(t *testing.T) {
						dir := t.TempDir()
						if err := dirs.prepare(dir); err != nil {
							t.Skip(err)
						}
						path := filepath.Join(dir, "lock")
						if named {
							withoutUnnamed(t, dir)
						}
						want := perm
						if perm == 0 {
							want = 0o666 &^ umask
							if dirs.acl {
								want = 0o666 &^ dirs.less
							}
						}
						lockfile.SetFchmod(t, func(chmod func() error) error {
							fi, err := os.Lstat(path)
							switch {
							case err == nil && unnamed != 0 && !named:
								t.Errorf("it has its name before its mode")
							case err == nil && fi.Mode().Perm()&^perm != 0:
								t.Errorf("before it has the mode %v, it has %v", perm, fi.Mode())
							}
							return chmod()
						})
						syscall.Umask(int(umask))
						f, err := lockfile.Create(path, locktable.Exclusive, perm)
						syscall.Umask(0)
						must(t, err)
						mustClose(t, f)
						fi, err := os.Lstat(path)
						must(t, err)
						if fi.Mode() != want {
							t.Errorf("mode is %v, want %v", fi.Mode(), want)
						}
					})
				}
			}
		}
	}
}

// A file system that has no permissions, as FAT, says so, but everything else is an error.
func TestFchmodFails(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	for _, test := range []struct {
		err  error
		want error
	}{
		{unix.EPERM, nil},
		{unix.EINVAL, nil},
		{unix.ENOSYS, nil},
		{unix.EOPNOTSUPP, nil},
		{unix.EIO, unix.EIO},
		{unix.EROFS, unix.EROFS},
		{unix.EACCES, unix.EACCES},
	} {
		for _, named := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v, %t", test.err, named), func(t *testing.T) {
				dir := t.TempDir()
				if named {
					withoutUnnamed(t, dir)
				}
				lockfile.SetFchmod(t, func(func() error) error { return test.err })
				l := fasteners.NewInterProcessLock(filepath.Join(dir, "lock"), fasteners.WithFileMode(0o666))
				ok, err := l.TryAcquire()
				if !errors.Is(err, test.want) || ok != (test.want == nil) {
					t.Fatalf("%t, %v", ok, err)
				}
				if ok {
					must(t, l.Release())
				}
			})
		}
	}
}

// Until a file has its permissions, if that takes a moment, others are refused: they ask again. A
// refusal of an older file is final at once.
func TestRefusedByNewFile(t *testing.T) {
	for _, test := range []struct {
		name     string
		age      time.Duration
		refusals int
		want     error
	}{
		{"new", -time.Hour, 9, nil},
		{"new, but not accessible", -time.Hour, 1000, fs.ErrPermission},
		{"old", time.Hour, 2, fs.ErrPermission},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "lock")
			must(t, os.WriteFile(path, nil, 0o666))
			at := time.Now().Add(-test.age)
			must(t, os.Chtimes(path, at, at))
			refusals := 0
			lockfile.SetOpen(t, dir, func(_ string, _ int, open func() (int, error)) (int, error) {
				if refusals == test.refusals {
					return open()
				}
				refusals++
				return -1, unix.EACCES
			})
			f, err := lockfile.Open(path, locktable.Shared)
			if !errors.Is(err, test.want) {
				t.Fatal(err)
			}
			if err == nil {
				mustClose(t, f)
			} else if test.age > 0 && refusals != 2 {
				t.Errorf("tried %d times, want one attempt for each mode", refusals)
			}
		})
	}
}

// Another process creates the file, or makes a link, between the look at the path and the creation.
func TestCreatedMeanwhile(t *testing.T) {
	for _, perm := range []fs.FileMode{0, 0o666} {
		for _, test := range []struct {
			name      string
			meanwhile func(path string) error // before open(2), which is to create the file
			then      func(path string) error // after that has failed
			want      error
		}{
			{"a file", func(path string) error { return os.WriteFile(path, nil, 0o666) }, nil, nil},
			{"a file that is removed again", func(path string) error { return os.WriteFile(path, nil, 0o666) }, os.Remove, locktable.ErrRetry},
			{"a link to a file", func(path string) error {
				return errors.Join(os.WriteFile(path+".target", nil, 0o666), os.Symlink(path+".target", path))
			}, nil, nil},
			{"a link to nothing", func(path string) error { return os.Symlink(path+".target", path) }, nil, fs.ErrNotExist},
			{"a link to what comes later", func(path string) error { return os.Symlink(path+".target", path) },
				func(path string) error { return os.WriteFile(path+".target", nil, 0o666) }, nil},
			{"a link to itself", func(path string) error { return os.Symlink(path, path) }, nil, unix.ELOOP},
			{"a directory", func(path string) error { return os.Mkdir(path, 0o777) }, nil, unix.EISDIR},
			{"a named pipe", func(path string) error { return unix.Mkfifo(path, 0o666) }, nil, fs.ErrInvalid},
		} {
			if perm != 0 && unnamed != 0 && test.then != nil {
				continue // the attempt that fails is not open(2)
			}
			t.Run(fmt.Sprintf("%s, %o", test.name, perm), func(t *testing.T) {
				dir := t.TempDir()
				path := filepath.Join(dir, "lock")
				lockfile.SetOpen(t, dir, func(_ string, flags int, open func() (int, error)) (int, error) {
					if flags&unix.O_CREAT == 0 && !isUnnamed(flags) {
						return open()
					}
					must(t, test.meanwhile(path))
					fd, err := open()
					if test.then != nil {
						must(t, test.then(path))
					}
					return fd, err
				})
				f, err := lockfile.Create(path, locktable.Exclusive, perm)
				if !errors.Is(err, test.want) {
					t.Fatalf("error is %v, want %v", err, test.want)
				}
				if err == nil {
					mustClose(t, f)
				} else if isLink := strings.Contains(err.Error(), "symbolic link to nothing"); isLink != (test.name == "a link to nothing") {
					t.Errorf("error is %v", err)
				}
			})
		}
	}
}

// Every error of open(2), of a file that exists and of one that does not. A reader is content
// with a read-only attempt, whatever the error of the other one is. A writer gets the first error.
func TestErrorsOfOpen(t *testing.T) {
	var errnos []unix.Errno
	for e := unix.Errno(1); e < 600; e++ {
		if unix.ErrnoName(e) != "" || e == restart {
			errnos = append(errnos, e)
		}
	}
	if len(errnos) < 50 {
		t.Fatalf("there are only %d errors", len(errnos))
	}
	for _, errno := range errnos {
		if errno == unix.EINTR {
			continue // TestInterruptedOpen
		}
		t.Run(fmt.Sprintf("%d %s", errno, unix.ErrnoName(errno)), func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "lock")
			must(t, os.WriteFile(path, nil, 0o666))
			lockfile.SetOpen(t, path, func(_ string, flags int, open func() (int, error)) (int, error) {
				if flags&unix.O_ACCMODE != unix.O_RDONLY {
					return -1, errno
				}
				return open()
			})
			l := fasteners.NewInterProcessReaderWriterLock(path)
			if ok, err := l.TryAcquireReadLock(); !ok || err != nil {
				t.Fatalf("reader: %t, %v", ok, err)
			}
			must(t, l.ReleaseReadLock())
			want := error(errno)
			switch errno {
			case unix.EAGAIN: // a lease
				want = nil
			case unix.ENOENT: // removed between stat(2) and open(2), again and again
				want = locktable.ErrRetry
			case restart:
				want = unix.EINTR
			}
			ok, err := l.TryAcquireWriteLock()
			if ok || !errors.Is(err, want) {
				t.Errorf("writer: %t, %v", ok, err)
			}
			checkText(t, err)

			// Nor can it be created.
			path = filepath.Join(dir, "new")
			lockfile.SetOpen(t, path, func(string, int, func() (int, error)) (int, error) { return -1, errno })
			ok, err = fasteners.NewInterProcessLock(path).TryAcquire()
			switch errno {
			case unix.EEXIST: // but something is there, which open(2) says, and stat(2) does not
				want = errno
			case unix.ENOENT: // the directory refuses
				want = errno
			case unix.EAGAIN:
				want = locktable.ErrRetry
			}
			if ok || !errors.Is(err, want) {
				t.Errorf("creator: %t, %v", ok, err)
			}
			checkText(t, err)
		})
	}
}

// checkText checks that an error which says that something is not supported tells of what.
func checkText(t *testing.T, err error) {
	t.Helper()
	says := err != nil && strings.Contains(err.Error(), "the file system of the ")
	if errors.Is(err, errors.ErrUnsupported) != says {
		t.Errorf("error is %v", err)
	}
}

// Signals interrupt open(2) any number of times. ERESTARTSYS stands for that, but it may be what a
// FUSE server always answers.
func TestInterruptedOpen(t *testing.T) {
	for _, test := range []struct {
		errno unix.Errno
		times int
		want  error
	}{
		{unix.EINTR, 1, nil},
		{unix.EINTR, 10000, nil},
		{restart, 1, nil},
		{restart, 90, nil},
		{restart, 10000, unix.EINTR},
	} {
		for _, call := range []string{"open", "create", "mkdir"} {
			t.Run(fmt.Sprintf("%s, %d, %d", call, test.errno, test.times), func(t *testing.T) {
				dir := t.TempDir()
				path := filepath.Join(dir, "lock")
				n := test.times
				fails := func() bool { n--; return n >= 0 }
				switch call {
				case "open":
					must(t, os.WriteFile(path, nil, 0o666))
				case "mkdir":
					path = filepath.Join(dir, "dir", "lock")
					lockfile.SetMkdir(t, dir, func(_ string, mkdir func() error) error {
						if fails() {
							return test.errno
						}
						return mkdir()
					})
				}
				if call != "mkdir" {
					lockfile.SetOpen(t, dir, func(_ string, _ int, open func() (int, error)) (int, error) {
						if fails() {
							return -1, test.errno
						}
						return open()
					})
				}
				l := fasteners.NewInterProcessLock(path)
				ok, err := l.TryAcquire()
				if ok != (test.want == nil) || !errors.Is(err, test.want) {
					t.Fatalf("%t, %v", ok, err)
				}
				if ok {
					must(t, l.Release())
				}
			})
		}
	}
}

// Every error of mkdir(2) is returned, with the directory.
func TestErrorsOfMkdir(t *testing.T) {
	for _, errno := range []unix.Errno{
		unix.EACCES, unix.EDQUOT, unix.EEXIST, unix.EINVAL, unix.EIO, unix.ELOOP, unix.EMLINK, unix.ENAMETOOLONG,
		unix.ENOENT, unix.ENOMEM, unix.ENOSPC, unix.ENOSYS, unix.ENOTDIR, unix.EOPNOTSUPP, unix.EPERM, unix.EROFS,
	} {
		t.Run(unix.ErrnoName(errno), func(t *testing.T) {
			dir := t.TempDir()
			a := filepath.Join(dir, "a")
			calls := 0
			lockfile.SetMkdir(t, dir, func(path string, _ func() error) error {
				if path == a {
					calls++
				}
				return errno
			})
			ok, err := fasteners.NewInterProcessLock(filepath.Join(a, "lock")).TryAcquire()
			checkText(t, err)
			if errno == unix.EEXIST { // mkdir(2) says that there is a directory, and stat(2) that there is none
				if ok || !errors.Is(err, locktable.ErrRetry) {
					t.Errorf("%t, %v", ok, err)
				}
				return
			}
			var step *fs.PathError
			if ok || !errors.As(err, &step) || !errors.As(step.Err, &step) || step.Op != "mkdir" || step.Path != a || !errors.Is(err, errno) {
				t.Errorf("%t, %v", ok, err)
			}
			if calls > 3 {
				t.Errorf("tried %d times", calls)
			}

			// A directory that is there need not be created: mkdir(2) may say anything.
			must(t, os.MkdirAll(filepath.Join(dir, "b"), 0o777))
			l := fasteners.NewInterProcessLock(filepath.Join(dir, "b", "lock"))
			must(t, l.Acquire(t.Context()))
			must(t, l.Release())
		})
	}
}

// The error of a user who may not open the file, or create it, tells whose it is.
func TestWhoseItIs(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the owner is this user")
	}
	for _, test := range []struct {
		uid  int
		mode fs.FileMode
		want string
	}{
		{0, 0o644, "permission denied: the lock file belongs to root and has mode 0644"},
		{65534, 0o600, "permission denied: the lock file belongs to nobody and has mode 0600"},
		{123456, 0, "permission denied: the lock file belongs to user 123456 and has mode 0000"},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "lock")
		must(t, os.WriteFile(path, nil, 0o666))
		must(t, os.Chmod(path, test.mode))
		must(t, os.Chown(path, test.uid, -1))
		lockfile.SetOpen(t, path, func(string, int, func() (int, error)) (int, error) { return -1, unix.EACCES })
		_, err := lockfile.Open(path, locktable.Shared)
		if err == nil || err.Error() != test.want || !errors.Is(err, fs.ErrPermission) {
			t.Errorf("error is %v, want %s", err, test.want)
		}

		path = filepath.Join(dir, "missing")
		must(t, os.Chmod(dir, test.mode))
		must(t, os.Chown(dir, test.uid, -1))
		lockfile.SetOpen(t, path, func(string, int, func() (int, error)) (int, error) { return -1, unix.EACCES })
		_, err = lockfile.Create(path, locktable.Shared, 0)
		if want := strings.Replace(test.want, "lock file", "directory", 1); err == nil || err.Error() != want {
			t.Errorf("error is %v, want %s", err, want)
		}
	}
}

// A directory that refuses is told from one that another process removes and creates again.
func TestDirectoryRefuses(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a", "lock")
	calls := 0
	lockfile.SetOpen(t, path, func(string, int, func() (int, error)) (int, error) { calls++; return -1, unix.ENOENT })
	ok, err := fasteners.NewInterProcessLock(path).TryAcquire()
	if ok || !errors.Is(err, unix.ENOENT) || errors.Is(err, locktable.ErrRetry) {
		t.Errorf("%t, %v", ok, err)
	}
	if creations := calls; creations > 6 {
		t.Errorf("tried %d times", calls)
	}

	path = filepath.Join(dir, "b", "lock")
	calls = 0
	lockfile.SetOpen(t, path, func(_ string, flags int, open func() (int, error)) (int, error) {
		if flags&unix.O_CREAT == 0 {
			return open()
		}
		if calls++; calls > 500 {
			return open()
		}
		if calls > 1 { // the directory exists
			must(t, os.Remove(filepath.Dir(path)))
			must(t, os.Mkdir(filepath.Dir(path), 0o777))
			// The new directory can have the same number, and within a tick of the clock the same time.
			created := time.Unix(int64(calls), 0)
			must(t, os.Chtimes(filepath.Dir(path), created, created))
		}
		return -1, unix.ENOENT
	})
	l := fasteners.NewInterProcessLock(path)
	must(t, l.Acquire(t.Context()))
	must(t, l.Release())
	if calls < 500 {
		t.Errorf("%d calls", calls)
	}
}
