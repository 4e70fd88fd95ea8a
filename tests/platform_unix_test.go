//go:build unix

package tests

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/internal/posix"
	"github.com/go-fasteners/fasteners/internal/stress"
)

const (
	filesCanBeReplacedWhileOpen = true
	filesHavePermissions        = true

	errIsDirectory  = syscall.EISDIR
	errNotDirectory = syscall.ENOTDIR
)

// processOwnedVar makes tests and helpers use the process-owned form of fcntl locks, which the
// package uses on all systems but Linux.
const processOwnedVar = "FASTENERS_TEST_PROCESS_OWNED"

// locksAreProcessOwned reports whether fcntl locks belong to the process. If so, processes that
// wait for another one poll.
func locksAreProcessOwned() bool {
	return runtime.GOOS != "linux" || os.Getenv(processOwnedVar) != ""
}

// restWherePolling is how long a process rests between its holds, so that processes that poll find
// the lock free at times.
var restWherePolling time.Duration

func init() {
	if locksAreProcessOwned() {
		restWherePolling = time.Millisecond
	}
	setUp = func() {
		syscall.Umask(0)
		posix.ForceProcessOwned.Store(os.Getenv(processOwnedVar) != "")
	}
}

func TestNotRegularFile(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	must(t, exec.Command("mkfifo", fifo).Run())
	socket := filepath.Join(dir, "socket")
	listener, err := net.Listen("unix", socket)
	must(t, err)
	defer listener.Close()
	link := filepath.Join(dir, "link")
	must(t, os.Symlink(fifo, link))
	for _, path := range []string{fifo, socket, link, "/dev/null", "/dev/tty"} {
		t.Run(filepath.Base(path), func(t *testing.T) {
			checkRefused(t, path, fs.ErrInvalid)
		})
	}
}

func TestSymlinks(t *testing.T) {
	dir := t.TempDir()
	path, target := filepath.Join(dir, "link"), filepath.Join(dir, "target")

	must(t, os.Symlink(filepath.Join(dir, "missing", "target"), path))
	checkRefused(t, path, fs.ErrNotExist)
	must(t, os.Remove(path))

	must(t, os.Symlink(path, path))
	checkRefused(t, path, syscall.ELOOP)
	must(t, os.Remove(path))

	must(t, os.WriteFile(target, nil, 0o666))
	must(t, os.Symlink(target, path))
	a, b := exclusive(path), exclusive(target)
	a.mustAcquire(t)
	b.mustTry(t, false)

	// The link is replaced by one to another file.
	must(t, os.WriteFile(target+"2", nil, 0o666))
	must(t, os.Symlink(target+"2", path+".new"))
	must(t, os.Rename(path+".new", path))
	c := writer(path)
	c.mustAcquire(t)
	b.mustTry(t, false)
	checkError(t, a.release(), "release", path, fasteners.ErrReplaced)
	b.mustTry(t, true)
	c.mustRelease(t)
}

// mountTmpfs mounts a file system on dir, where that is known how.
var mountTmpfs = func(dir, options string) (unmount func() error, err error) {
	return nil, errors.ErrUnsupported
}

// mount mounts a file system on a new directory.
func mount(t *testing.T, options string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	unmount, err := mountTmpfs(dir, options)
	if err != nil {
		skipOrFail(t, fmt.Sprintf("the right to mount a file system (%v)", err))
	}
	t.Cleanup(func() { must(t, unmount()) })
	return dir
}

func TestFileSystemFull(t *testing.T) {
	dir := mount(t, "nr_inodes=2")
	last := filepath.Join(dir, "last")
	must(t, os.WriteFile(last, nil, 0o666))
	checkRefused(t, filepath.Join(dir, "lock"), syscall.ENOSPC)
	checkRefused(t, filepath.Join(dir, "dir", "lock"), syscall.ENOSPC)
	for _, v := range variants(last) { // which exists
		v.mustTry(t, true)
	}
}

// Files on two file systems can have the same inode number. They are different locks.
func TestSameInodeOnTwoFileSystems(t *testing.T) {
	a, b := filepath.Join(mount(t, "size=1m"), "lock"), filepath.Join(mount(t, "size=1m"), "lock")
	inode := func(path string) uint64 {
		must(t, os.WriteFile(path, nil, 0o666))
		fi, err := os.Stat(path)
		must(t, err)
		return uint64(fi.Sys().(*syscall.Stat_t).Ino)
	}
	if inode(a) != inode(b) {
		skipOrFail(t, "two file systems that assign the same inode numbers")
	}
	for _, v := range variants(a) {
		for _, other := range variants(b) {
			v.mustAcquire(t)
			other.mustTry(t, true)
			v.mustRelease(t)
		}
	}
}

// A process that lacks permissions gets fs.ErrPermission, but can lock a file as far as it can open
// it.
func TestPermissions(t *testing.T) {
	p := startHelper(t, permissionsHelper, t.TempDir())
	p.finish()
}

type permissionTest struct {
	name              string
	fileMode, dirMode fs.FileMode
	noFile            bool
	read, write       error // from acquiring the lock
}

var permissionsHelper = newHelper("permissions", func(_ *bufio.Reader, args []string) error {
	// Paths are relative to the current directory, as others may not search the directories above
	// it.
	if err := os.Chdir(args[0]); err != nil {
		return err
	}
	for _, test := range []permissionTest{
		{"read-only directory without the file", 0, 0o555, true, fs.ErrPermission, fs.ErrPermission},
		{"closed directory", 0o666, 0o600, false, fs.ErrPermission, fs.ErrPermission},
		{"read-only directory with the file", 0o666, 0o555, false, nil, nil},
		{"read-only file", 0o444, 0o777, false, nil, fs.ErrPermission},
		{"read-only file in a read-only directory", 0o444, 0o555, false, nil, fs.ErrPermission},
		{"write-only file", 0o222, 0o777, false, fs.ErrPermission, nil},
		{"closed file", 0, 0o777, false, fs.ErrPermission, fs.ErrPermission},
		{"file of another user in a sticky directory", 0o666, 0o777 | fs.ModeSticky, false, nil, nil},
	} {
		if err := test.run(); err != nil {
			return fmt.Errorf("%s: %w", test.name, err)
		}
	}
	return nil
})

func (test permissionTest) run() error {
	const dir, path = "dir", "dir/lock"
	if err := os.Mkdir(dir, 0o777); err != nil {
		return err
	}
	if !test.noFile {
		if err := os.WriteFile(path, nil, 0o666); err != nil {
			return err
		}
		if err := os.Chmod(path, test.fileMode); err != nil {
			return err
		}
	}
	if err := os.Chmod(dir, test.dirMode); err != nil {
		return err
	}
	if err := withoutPrivileges(func() error { return test.check(path) }); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// check acquires the lock for reading and writing in turn, through one entry of the table: readers
// and writers may need different descriptors.
func (test permissionTest) check(path string) error {
	for range 2 {
		for _, v := range variants(path) {
			want := test.write
			if v.shared {
				want = test.read
			}
			err := v.acquire(background)
			if !errors.Is(err, want) {
				return fmt.Errorf("%s: error is %v, want %v", v.name, err, want)
			}
			if err != nil {
				continue
			}
			if err := v.release(); err != nil {
				return err
			}
		}
	}
	return nil
}

// withoutPrivileges calls f as nobody if the process is run by root, to whom permissions do not
// apply. To other users they apply although the files are theirs.
func withoutPrivileges(f func() error) error {
	if os.Getuid() != 0 {
		return f()
	}
	const nobody = 65534
	if err := syscall.Seteuid(nobody); err != nil {
		return err
	}
	defer syscall.Seteuid(0)
	return f()
}

// If the process can open no more files, acquire fails. One descriptor is enough to wait for a
// lock.
func TestNoDescriptorsLeft(t *testing.T) {
	path := lockPath(t)
	must(t, os.WriteFile(path, nil, 0o666))
	holder := startHolder(t, path, "exclusive")
	p := startHelper(t, descriptorsHelper, path)
	p.expect("one left")
	holder.release()
	p.finish()
}

var descriptorsHelper = newHelper("descriptors", func(_ *bufio.Reader, args []string) error {
	path := args[0]
	// Opened by package os so that the runtime creates the descriptors that it needs itself.
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	spare, err := useAllDescriptors(int(null.Fd()))
	if err != nil {
		return err
	}
	for _, v := range variants(path) {
		if err := v.acquire(background); !errors.Is(err, syscall.EMFILE) {
			return fmt.Errorf("%s: error is %v", v.name, err)
		}
		if ok, err := v.try(); ok || !errors.Is(err, syscall.EMFILE) {
			return fmt.Errorf("%s: try: %v, %v", v.name, ok, err)
		}
	}
	unix.Close(spare)
	fmt.Println("one left")
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	return exclusive(path).hold(ctx)
})

// useAllDescriptors duplicates fd until the process can have no more descriptors, and returns the
// last one.
func useAllDescriptors(fd int) (last int, err error) {
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: 64}); err != nil {
		return 0, err
	}
	for {
		next, err := unix.Dup(fd)
		if err == unix.EMFILE {
			return last, nil
		}
		if err != nil {
			return 0, err
		}
		last = next
	}
}

// Where locks belong to the open file description, the program may open and close the lock file
// elsewhere.
func TestUnrelatedCloseKeepsLock(t *testing.T) {
	if locksAreProcessOwned() {
		t.Skip("fcntl locks belong to the process here, and POSIX requires that they are dropped")
	}
	path := lockPath(t)
	for _, v := range variants(path) {
		v.mustAcquire(t)
		_, err := os.ReadFile(path)
		must(t, err)
		mustTryInProcess(t, path, "write", false)
		v.mustRelease(t)
	}
}

// Tries that fail, and waiters that are canceled, close no descriptor that would drop the lock of
// another handle. Only another process can see whether they do.
func TestOtherHandlesKeepLock(t *testing.T) {
	path := lockPath(t)
	hard := path + ".hard"
	must(t, os.WriteFile(path, nil, 0o666))
	must(t, os.Link(path, hard))
	for _, v := range variants(path) {
		v.mustAcquire(t)
		for _, otherPath := range []string{path, hard} {
			for _, other := range variants(otherPath) {
				other.mustTry(t, v.shared && other.shared)
				if !v.shared || !other.shared {
					ctx, cancel := context.WithCancel(background)
					done := other.goAcquire(t, ctx)
					cancel()
					checkError(t, <-done, "acquire", otherPath, context.Canceled)
				}
				mustTryInProcess(t, path, "write", false)
			}
		}
		v.mustRelease(t)
	}
}

// Two processes each hold a lock and wait, in another goroutine, for the lock of the other. A
// kernel that looks at the processes reports EDEADLK, but there is no deadlock: both release their
// locks.
func TestSpuriousEDEADLK(t *testing.T) {
	ours, theirs := lockPath(t), lockPath(t)
	a, b := exclusive(ours), exclusive(theirs)
	a.mustAcquire(t)
	p := startHelper(t, crosswiseHelper, theirs, ours)
	p.expect("held")
	done := b.goAcquire(t, background)
	p.say("acquire")
	p.expect("waiting")
	a.mustTry(t, false)
	p.say("release")
	must(t, <-done)
	a.mustRelease(t)
	p.expect("held")
	b.mustRelease(t)
	p.finish()
}

var crosswiseHelper = newHelper("crosswise", func(in *bufio.Reader, args []string) error {
	a, b := exclusive(args[0]), exclusive(args[1])
	if err := a.acquire(background); err != nil {
		return err
	}
	fmt.Println("held")
	if _, err := in.ReadString('\n'); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- b.acquire(background) }()
	select {
	case err := <-done:
		return fmt.Errorf("acquire did not block (error %v)", err)
	case <-time.After(10 * time.Millisecond):
	}
	fmt.Println("waiting")
	if _, err := in.ReadString('\n'); err != nil {
		return err
	}
	if err := a.release(); err != nil {
		return err
	}
	if err := <-done; err != nil {
		return err
	}
	fmt.Println("held")
	return b.release()
})

// resources returns what this process uses.
func resources(path string) usage {
	u := usage{goroutines: runtime.NumGoroutine()}
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		u.descriptors = len(fds)
		for _, fd := range fds {
			target, _ := os.Readlink("/proc/self/fd/" + fd.Name())
			if strings.TrimSuffix(target, " (deleted)") == path {
				u.lockFile++
			}
		}
	}
	return u
}

// Acquire creates directories that everybody may use, subject to umask.
func TestDirectoryMode(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a")
	must(t, exclusive(filepath.Join(dir, "b", "lock")).hold(background))
	fi, err := os.Stat(dir)
	must(t, err)
	if fi.Mode().Perm() != 0o777 {
		t.Errorf("mode is %v", fi.Mode())
	}
}

// Acquire creates missing directories, even while another goroutine removes them all the time.
func TestDirectoryRemovedConcurrently(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a")
	path := filepath.Join(dir, "b", "lock")
	stop := make(chan bool)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				os.RemoveAll(dir)
				runtime.Gosched()
			}
		}
	})
	for range stress.Rounds() {
		v := exclusive(path)
		if err := v.acquire(background); err != nil {
			t.Error(err)
			break
		}
		if err := v.release(); err != nil && !errors.Is(err, fasteners.ErrReplaced) {
			t.Error(err)
			break
		}
	}
	close(stop)
	wg.Wait()
}

// monotonicClock is the same clock in all processes.
var monotonicClock = func() time.Duration { return time.Duration(time.Now().UnixNano()) }

// cpuTime returns how long this process has been running on a processor.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
