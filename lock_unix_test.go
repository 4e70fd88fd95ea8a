//go:build unix

package fasteners_test

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
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/internal/posix"
)

const (
	filesCanBeReplacedWhileOpen = true
	filesHavePermissions        = true

	errIsDirectory  = syscall.EISDIR
	errNotDirectory = syscall.ENOTDIR
)

// processOwnedVar makes tests and helpers use the process-owned form of fcntl locks, which this package
// uses on all systems but Linux.
const processOwnedVar = "FASTENERS_TEST_PROCESS_OWNED"

// restWherePolling is for how long a process does not want the lock, so that one that polls finds it
// free at times.
var restWherePolling time.Duration

func init() {
	if runtime.GOOS != "linux" || os.Getenv(processOwnedVar) != "" {
		restWherePolling = time.Millisecond
	}
	setUp = func() {
		syscall.Umask(0)
		posix.ForceProcessOwned.Store(os.Getenv(processOwnedVar) != "")
	}
}

func TestNotRegular(t *testing.T) {
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

	// As open(2) does, acquire creates what a link names.
	must(t, os.Symlink(target, path))
	a, b := sides(path)[0], sides(target)[0]
	a.mustAcquire(t)
	b.mustTry(t, false)

	// The link comes to name another file.
	must(t, os.WriteFile(target+"2", nil, 0o666))
	must(t, os.Symlink(target+"2", path+".new"))
	must(t, os.Rename(path+".new", path))
	c := sides(path)[2]
	c.mustAcquire(t)
	b.mustTry(t, false)
	checkError(t, a.release(), "release", path, fasteners.ErrReplaced)
	b.mustTry(t, true)
	c.mustRelease(t)
}

// A waiter starts over as soon as it sees that the file is not the one of the path any
// more, and not when the lock on that is free.
func TestReplacedWhileWaitingForAnotherProcess(t *testing.T) {
	for i := range sides("") {
		for _, ctx := range []context.Context{background, cancellable(t)} {
			path := lockPath(t)
			s := sides(path)[i]
			startHolder(t, path, "exclusive")
			done := s.goAcquire(t, ctx)
			must(t, os.Rename(path, path+".old"))
			must(t, <-done)
			s.mustRelease(t)
		}
	}
}

// mount mounts a file system of its own on a new directory.
func mount(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := mountTmpfs(dir, options); err != nil {
		missing(t, fmt.Sprintf("the right to mount a file system (%v)", err))
	}
	t.Cleanup(func() { must(t, unmount(dir)) })
	return dir
}

func TestFileSystemFull(t *testing.T) {
	dir := mount(t, "nr_inodes=2")
	must(t, os.WriteFile(filepath.Join(dir, "last"), nil, 0o666))
	checkRefused(t, filepath.Join(dir, "lock"), syscall.ENOSPC)
	checkRefused(t, filepath.Join(dir, "dir", "lock"), syscall.ENOSPC)
	for _, s := range sides(filepath.Join(dir, "last")) { // that is there
		s.mustTry(t, true)
	}
}

// Files of two file systems can have the same inode number.
func TestSameInodeOfTwoFileSystems(t *testing.T) {
	a, b := filepath.Join(mount(t, "size=1m"), "lock"), filepath.Join(mount(t, "size=1m"), "lock")
	inode := func(path string) uint64 {
		must(t, os.WriteFile(path, nil, 0o666))
		fi, err := os.Stat(path)
		must(t, err)
		return uint64(fi.Sys().(*syscall.Stat_t).Ino)
	}
	if inode(a) != inode(b) {
		missing(t, "two file systems that number their files alike")
	}
	for _, s := range sides(a) {
		for _, other := range sides(b) {
			s.mustAcquire(t)
			other.mustTry(t, true)
			s.mustRelease(t)
		}
	}
}

// What happens to those who lack permission, in a helper that gives up root's.
func TestPermissions(t *testing.T) {
	p := startHelper(t, "unprivileged", t.TempDir(), strconv.Itoa(os.Getuid()))
	p.finish()
}

func init() {
	helpers["unprivileged"] = func(_ *bufio.Reader, args []string) error {
		// Relative to the current directory, so that those above it may be closed to others.
		if err := os.Chdir(args[0]); err != nil {
			return err
		}
		const dir, path = "dir", "dir/lock"
		const nobody = 65534
		make := func(perm, dirPerm fs.FileMode, file bool) error {
			err := os.Mkdir(dir, 0o777)
			if err == nil && file {
				err = os.WriteFile(path, nil, 0o666)
			}
			if err == nil && file {
				err = os.Chmod(path, perm)
			}
			if err == nil {
				err = os.Chmod(dir, dirPerm)
			}
			return err
		}
		asNobody := func(f func() error) error {
			if args[1] != "0" {
				return f() // the files are ours, but their modes hold for us, too
			}
			if err := syscall.Seteuid(nobody); err != nil {
				return err
			}
			defer syscall.Seteuid(0)
			return f()
		}
		for _, test := range []struct {
			name        string
			perm        fs.FileMode // of the file, if there is one
			dirPerm     fs.FileMode
			file        bool
			read, write error
		}{
			{"read-only directory without the file", 0, 0o555, false, fs.ErrPermission, fs.ErrPermission},
			{"closed directory", 0o666, 0o600, true, fs.ErrPermission, fs.ErrPermission},
			{"read-only directory with the file", 0o666, 0o555, true, nil, nil},
			{"file to read", 0o444, 0o777, true, nil, fs.ErrPermission},
			{"file to read in a read-only directory", 0o444, 0o555, true, nil, fs.ErrPermission},
			{"file to write", 0o222, 0o777, true, fs.ErrPermission, nil},
			{"file of no use", 0, 0o777, true, fs.ErrPermission, fs.ErrPermission},
			{"file of somebody else in a sticky directory", 0o666, 0o777 | fs.ModeSticky, true, nil, nil},
		} {
			if err := make(test.perm, test.dirPerm, test.file); err != nil {
				return err
			}
			// One after the other through one entry of the table: reader and writer
			// need different descriptors.
			err := asNobody(func() error {
				for range 2 {
					for _, s := range sides(path) {
						want := test.write
						if s.shared {
							want = test.read
						}
						err := s.acquire(background)
						if !errors.Is(err, want) {
							return fmt.Errorf("%s: %s: error is %v, want %v", test.name, s.name, err, want)
						}
						if err == nil {
							err = s.release()
						} else if want != nil {
							err = nil
						}
						if err != nil {
							return err
						}
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
			if err := os.Chmod(dir, 0o777); err != nil {
				return err
			}
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
		return nil
	}
}

// With no descriptor left, acquire fails; with one left, it waits and polls.
func TestNoDescriptorsLeft(t *testing.T) {
	path := lockPath(t)
	must(t, os.WriteFile(path, nil, 0o666))
	holder := startHolder(t, path, "exclusive")
	p := startHelper(t, "descriptors", path)
	p.expect("one left")
	holder.release()
	p.finish()
}

func init() {
	helpers["descriptors"] = func(_ *bufio.Reader, args []string) error {
		path := args[0]
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: 64}); err != nil {
			return err
		}
		null, err := os.Open(os.DevNull)
		if err != nil {
			return err
		}
		var all []int
		for {
			fd, err := unix.Dup(int(null.Fd()))
			if err == unix.EMFILE {
				break
			}
			if err != nil {
				return err
			}
			all = append(all, fd)
		}
		for _, s := range sides(path) {
			if err := s.acquire(background); !errors.Is(err, syscall.EMFILE) {
				return fmt.Errorf("%s: error is %v", s.name, err)
			}
			if ok, err := s.try(); ok || !errors.Is(err, syscall.EMFILE) {
				return fmt.Errorf("%s: try: %v, %v", s.name, ok, err)
			}
		}
		unix.Close(all[0])
		fmt.Println("one left")
		s := sides(path)[0]
		ctx, cancel := context.WithCancel(background)
		defer cancel()
		if err := s.acquire(ctx); err != nil {
			return err
		}
		return s.release()
	}
}

// Another open of the lock file in the program, and its end, lose nothing: where locks
// belong to the open file description.
func TestStrayReadOfTheLockFile(t *testing.T) {
	if runtime.GOOS != "linux" || os.Getenv(processOwnedVar) != "" {
		t.Skip("the locks of fcntl belong to the process here, as POSIX wants it")
	}
	path := lockPath(t)
	for i, name := range []string{"exclusive", "read", "write"} {
		s := sides(path)[i]
		s.mustAcquire(t)
		_, err := os.ReadFile(path)
		must(t, err)
		p := startHelper(t, "try", path, "write")
		if got := p.line(); got != "false" {
			t.Errorf("%s lock: try in another process: %s", name, got)
		}
		s.mustRelease(t)
	}
}

// Failed tries and other handles of the file close nothing that would drop its lock, which
// only another process can see.
func TestOtherHandlesDropNothing(t *testing.T) {
	path := lockPath(t)
	hard := path + ".hard"
	must(t, os.WriteFile(path, nil, 0o666))
	must(t, os.Link(path, hard))
	for _, s := range sides(path) {
		s.mustAcquire(t)
		for _, other := range append(sides(path), sides(hard)...) {
			other.mustTry(t, s.shared && other.shared)
			ctx, cancel := context.WithCancel(background)
			if !s.shared || !other.shared {
				done := other.goAcquire(t, ctx)
				cancel()
				checkError(t, <-done, "acquire", other.path(t), context.Canceled)
			}
			cancel()
			p := startHelper(t, "try", path, "write")
			p.expect("false")
		}
		s.mustRelease(t)
	}
}

// path returns the path of a side, out of the error of a release too many.
func (s side) path(t *testing.T) string {
	var err *fs.PathError
	if !errors.As(s.release(), &err) {
		t.Fatal("it was held")
	}
	return err.Path
}

// resources returns what this process has.
func resources(path string) usage {
	u := usage{goroutines: runtime.NumGoroutine()}
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		u.descriptors = len(fds)
		for _, fd := range fds {
			if target, _ := os.Readlink("/proc/self/fd/" + fd.Name()); strings.TrimSuffix(target, " (deleted)") == path {
				u.locked++
			}
		}
	}
	if tasks, err := os.ReadDir("/proc/self/task"); err == nil {
		u.threads = len(tasks)
	}
	return u
}

// The path comes to name nothing by way of a loop.
func TestReplacedByALoop(t *testing.T) {
	for i := range sides("") {
		path := lockPath(t)
		s := sides(path)[i]
		s.mustAcquire(t)
		must(t, os.Remove(path))
		must(t, os.Symlink(path, path))
		checkError(t, s.release(), "release", path, fasteners.ErrReplaced)
	}
}

// Directories that are made are for everybody, before umask.
func TestDirectoryMode(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a")
	s := sides(filepath.Join(dir, "b", "lock"))[0]
	s.mustAcquire(t)
	s.mustRelease(t)
	fi, err := os.Stat(dir)
	must(t, err)
	if fi.Mode().Perm() != 0o777 {
		t.Errorf("mode is %v", fi.Mode())
	}
}

// Many handles remember the old file.
func TestStaleGuesses(t *testing.T) {
	path := lockPath(t)
	var all []side
	for range 200 {
		s := sides(path)[0]
		s.mustAcquire(t)
		s.mustRelease(t)
		all = append(all, s)
	}
	must(t, os.Rename(path, path+".old"))
	h := sides(path)[0]
	h.mustAcquire(t)
	for _, s := range all {
		s.mustTry(t, false)
	}
	if u := resources(path); u.locked > 1 {
		t.Errorf("%d descriptors of the lock file", u.locked)
	}
	h.mustRelease(t)
}

// Two processes each hold a lock and wait, in another goroutine, for that of the other. The
// kernel, which may judge by process, thinks that this is a deadlock; it is none.
func TestCrosswise(t *testing.T) {
	ours, theirs := lockPath(t), lockPath(t)
	a, b := sides(ours)[0], sides(theirs)[0]
	a.mustAcquire(t)
	p := startHelper(t, "crosswise", theirs, ours)
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

func init() {
	helpers["crosswise"] = func(in *bufio.Reader, args []string) error {
		a, b := sides(args[0])[0], sides(args[1])[0]
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
			return fmt.Errorf("did not wait: %v", err)
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
	}
}

// A crowd waits behind a holder who sees the file replaced. The new one is opened once, and not
// by each of them.
func TestCrowdBehindAReplacedFile(t *testing.T) {
	p := startHelper(t, "replaced crowd", lockPath(t))
	p.expect("all had it")
}

func init() {
	helpers["replaced crowd"] = func(in *bufio.Reader, args []string) error {
		path := args[0]
		go exitAtEnd(in)
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: 64}); err != nil {
			return err
		}
		holder := sides(path)[0]
		if err := holder.acquire(background); err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(background)
		defer cancel()
		var wg sync.WaitGroup
		errs := make(chan error, 500)
		for range cap(errs) {
			s := sides(path)[0]
			wg.Go(func() {
				err := s.acquire(ctx)
				if err == nil {
					err = s.release()
				}
				if err != nil {
					errs <- err
				}
			})
		}
		waitUntilWaiting(cap(errs))
		if err := os.WriteFile(path+".new", nil, 0o666); err != nil {
			return err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
		if err := holder.release(); !errors.Is(err, fasteners.ErrReplaced) {
			return err
		}
		wg.Wait()
		close(errs)
		if err := <-errs; err != nil {
			return err
		}
		fmt.Println("all had it")
		return nil
	}
}

// Acquire makes the directories that are missing, also when somebody removes them meanwhile.
func TestDirectoriesComeAndGo(t *testing.T) {
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
	for range 3000 {
		s := sides(path)[0]
		if err := s.acquire(background); err != nil {
			t.Error(err)
			break
		}
		if err := s.release(); err != nil && !errors.Is(err, fasteners.ErrReplaced) {
			t.Error(err)
			break
		}
	}
	close(stop)
	wg.Wait()
}

// Where nothing can be made, acquire says so.
func TestNoDirectoryCanBeMade(t *testing.T) {
	dir := t.TempDir()
	gone := filepath.Join(dir, "gone")
	must(t, os.Mkdir(gone, 0o777))
	link := filepath.Join(dir, "link")
	must(t, os.Symlink(filepath.Join(dir, "none", "lock"), link))
	t.Chdir(gone)
	must(t, os.Remove(gone))
	for _, path := range []string{"lock", "a/lock", "a/b/lock", link} {
		if err := fasteners.NewInterProcessLock(path).Acquire(background); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
