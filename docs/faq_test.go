//go:build linux

package docs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners"
)

// holder asks the kernel as protocol.md describes it. It returns the ID of a process that holds the
// lock on path, or 0 if there is none, and since when.
func holder(path string) (pid int, since time.Time, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, time.Time{}, err
	}
	defer f.Close()
	lk := unix.Flock_t{Type: unix.F_WRLCK, Len: 1}
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lk)
	tag := lk.Len - 1<<62
	switch {
	case err != nil || lk.Type == unix.F_UNLCK:
		return 0, time.Time{}, err
	case tag < 0: // another library
		return int(lk.Pid), time.Time{}, nil
	}
	return int(tag >> 10 & (1<<22 - 1)), time.Unix(tag>>32+1735689600, 0), nil
}

// What faq.md shows.

func printHolders(path string) error {
	holders, err := fasteners.NewInterProcessLock(path).Holders()
	if err != nil {
		return err
	}
	fmt.Println(holders) // [process 4711 (backup) for 12s]
	return nil
}

func waitAndWork(ctx context.Context, path string, writeReport func(context.Context) error) error {
	lock := fasteners.NewInterProcessLock(path, fasteners.WithTimeout(5*time.Second))
	err := fasteners.WithLock(ctx, lock, writeReport)
	var held *fasteners.HeldError
	if errors.As(err, &held) {
		fmt.Println("timed out waiting for the lock")
	}
	return err
}

func TestFAQSnippets(t *testing.T) {
	checkSnippets(t, "faq.md", "faq_test.go")
}

func startOurs(t testing.TB, path, do string) *lockUser {
	t.Helper()
	u := startUser(t, toolNamed(oursName), path, do)
	u.mustSay("held")
	return u
}

func checkTry(t testing.TB, path string, want bool) {
	t.Helper()
	l := fasteners.NewInterProcessLock(path)
	ok, err := l.TryAcquire()
	must(t, err)
	if ok != want {
		t.Errorf("TryAcquire of %s returns %v, want %v", path, ok, want)
	}
	if ok {
		must(t, l.Release())
	}
}

func TestFAQHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.lock")
	page, err := os.ReadFile("faq.md")
	must(t, err)
	_, program, _ := strings.Cut(string(page), "```python\n")
	program, _, _ = strings.Cut(program, "```")
	check := func(name, want string, pid int, recent bool) {
		t.Helper()
		got, since, err := holder(path)
		must(t, err)
		must(t, printHolders(path))
		if got != pid || recent != (time.Since(since) < time.Hour) {
			t.Errorf("%s: held by %d since %v, want %d", name, got, since, pid)
		}
		if _, err := os.Stat(python); err != nil {
			skipOrFail(t, python)
		}
		cmd := exec.Command(python, "-c", program)
		cmd.Dir = filepath.Dir(path)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), want) {
			t.Errorf("%s: Python prints %q (%v), want %q", name, out, err, want)
		}
	}
	for _, do := range []string{"lock", "read"} {
		u := startOurs(t, path, do)
		pid := u.cmd.Process.Pid
		waiter := startUser(t, toolNamed(oursName), path, "bounded") // a writer, which also locks pending
		waiter.waits(path)
		check(do, fmt.Sprintf("process %d since ", pid), pid, true)

		// Also those that wait have the file open.
		if _, err := exec.LookPath("fuser"); err == nil {
			out, _ := exec.Command("fuser", path).Output()
			for _, p := range []*lockUser{u, waiter} {
				if !strings.Contains(string(out)+" ", fmt.Sprintf(" %d ", p.cmd.Process.Pid)) {
					t.Errorf("fuser prints %q, want %d in it", out, p.cmd.Process.Pid)
				}
			}
		}
		u.mustRelease()
		waiter.mustSay("held")
		waiter.mustRelease()
		check("free", "nobody", 0, false)
	}
	toolNamed(pythonName).require(t)
	u := startUser(t, toolNamed(pythonName), path, "lock")
	u.mustSay("held")
	check("Python", fmt.Sprintf("process %d which uses another library", u.cmd.Process.Pid), u.cmd.Process.Pid, false)
}

func TestFAQNames(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "data.json.lock")
	holder := startOurs(t, path, "lock")
	must(t, os.Symlink("data.json.lock", filepath.Join(dir, "symbolic")))
	must(t, os.Link(path, filepath.Join(dir, "hard")))
	t.Chdir(dir)
	for _, name := range []string{path, "data.json.lock", "symbolic", "hard"} {
		checkTry(t, name, false)
	}
	info, err := os.Stat(path)
	must(t, err)
	if info.Size() != 0 {
		t.Errorf("the lock file has %d bytes", info.Size())
	}
	holder.mustRelease()
	checkTry(t, path, true)

	// A data file that is replaced.
	data := filepath.Join(dir, "data.json")
	holder = startOurs(t, data, "lock")
	must(t, os.WriteFile(data+".new", nil, 0o666))
	must(t, os.Rename(data+".new", data))
	checkTry(t, data, true)
	if holder.release() == nil {
		t.Error("the release does not report the replaced file")
	}
}

func TestFAQRemoval(t *testing.T) {
	for name, remove := range map[string]func(dir, path string) error{
		"file":      func(_, path string) error { return os.Remove(path) },
		"directory": func(dir, _ string) error { return os.RemoveAll(dir) },
		"renamed":   func(dir, _ string) error { return os.Rename(dir, dir+".old") },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "dir")
			path := filepath.Join(dir, "lock")
			l := fasteners.NewInterProcessLock(path)
			mustAcquire(t, l)
			must(t, remove(dir, path))
			second := startOurs(t, path, "lock") // while l is held
			if err := l.Release(); !errors.Is(err, fasteners.ErrReplaced) {
				t.Errorf("Release: %v", err)
			}
			second.mustRelease()
		})
	}
}

// Removed by the holder, as the last thing before its release, while others wait: no two hold the
// lock at a time, and all get it.
func TestFAQRemovalByHolder(t *testing.T) {
	path := lockPath(t)
	l := fasteners.NewInterProcessLock(path)
	mustAcquire(t, l)
	a, b := startUser(t, toolNamed(oursName), path, "lock"), startUser(t, toolNamed(oursName), path, "lock")
	a.waits(path)
	must(t, os.Remove(path))
	if err := l.Release(); !errors.Is(err, fasteners.ErrReplaced) {
		t.Errorf("Release: %v", err)
	}
	next := func() (first, second *lockUser) {
		select {
		case s := <-a.lines:
			if s != "held" {
				t.Fatal(s)
			}
			return a, b
		case s := <-b.lines:
			if s != "held" {
				t.Fatal(s)
			}
			return b, a
		}
	}
	first, second := next()
	if second.says("held", false) {
		t.Fatal("two holders")
	}
	first.mustRelease()
	second.mustSay("held")
	second.mustRelease()
}

// A holder in another PID and mount namespace, as in a container that shares a volume.
func TestFAQContainers(t *testing.T) {
	path := lockPath(t)
	cmd := exec.Command(os.Args[0], path, "lock")
	cmd.Env = append(os.Environ(), toolVar+"="+oursName)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	if err := cmd.Start(); errors.Is(err, fs.ErrPermission) {
		skipOrFail(t, "the privilege to make namespaces")
	} else {
		must(t, err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	held := make([]byte, len("held\n"))
	_, err = out.Read(held)
	must(t, err)

	checkTry(t, path, false)
	if pid, _, err := holder(path); pid != 1 || err != nil {
		t.Errorf("holder has ID %d (%v), want 1, that of its own namespace", pid, err)
	}
	must(t, in.Close())
	must(t, fasteners.NewInterProcessLock(path).Acquire(context.Background()))
}

func TestFAQExec(t *testing.T) {
	path := lockPath(t)
	execs := startOurs(t, path, "exec")
	next := startOurs(t, path, "lock") // the first one is alive, as another program
	must(t, execs.in.Close())
	must(t, execs.cmd.Wait())
	next.mustRelease()
}

func TestFAQReentrant(t *testing.T) {
	path := lockPath(t)
	l := fasteners.NewInterProcessLock(path)
	mustAcquire(t, l)
	for _, other := range []*fasteners.InterProcessLock{l, fasteners.NewInterProcessLock(path)} {
		if err := other.Acquire(soon()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Acquire: %v", err)
		}
	}
	checkTry(t, path, false)
	must(t, l.Release())

	rw := fasteners.NewInterProcessReaderWriterLock(path)
	must(t, rw.AcquireReadLock(context.Background()))
	ctx, cancel := context.WithCancel(context.Background())
	writer := make(chan error, 1)
	go func() { writer <- rw.AcquireWriteLock(ctx) }()
	for { // until the writer waits
		ok, err := rw.TryAcquireReadLock()
		must(t, err)
		if !ok {
			break
		}
		must(t, rw.ReleaseReadLock())
	}
	if err := rw.AcquireReadLock(soon()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("second read lock: %v", err)
	}
	cancel()
	if err := <-writer; !errors.Is(err, context.Canceled) {
		t.Errorf("AcquireWriteLock: %v", err)
	}
	must(t, rw.ReleaseReadLock())
}

// The dump of a goroutine that waits for itself names the method that waits, and its caller.
func TestFAQHang(t *testing.T) {
	l := fasteners.NewInterProcessLock(lockPath(t))
	mustAcquire(t, l)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- acquireOnceMore(ctx, l) }()
	for buf := make([]byte, 1<<20); ; {
		dump := string(buf[:runtime.Stack(buf, true)])
		if _, after, ok := strings.Cut(dump, "fasteners.(*InterProcessLock).Acquire("); ok {
			if !strings.Contains(after, "acquireOnceMore(") {
				t.Errorf("the dump lacks the caller:\n%s", dump)
			}
			break
		}
		runtime.Gosched()
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	must(t, l.Release())
}

//go:noinline
func acquireOnceMore(ctx context.Context, l *fasteners.InterProcessLock) error {
	if err := l.Acquire(ctx); err != nil {
		return err
	}
	return l.Release()
}

func TestFAQTimeout(t *testing.T) {
	l := fasteners.NewInterProcessLock(lockPath(t))
	done, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Acquire(done); !errors.Is(err, context.Canceled) {
		t.Errorf("Acquire of a free lock, with a context that is done: %v", err)
	}
	// A deadline that ends the work.
	err := fasteners.WithLock(soon(), l, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	var pathErr *fs.PathError
	if !errors.Is(err, context.DeadlineExceeded) || errors.As(err, &pathErr) {
		t.Errorf("WithLock: %v", err)
	}
	// One context for each.
	must(t, waitAndWork(context.Background(), l.Path(), func(ctx context.Context) error {
		_, ok := ctx.Deadline()
		if ok {
			t.Error("the work has the deadline of the wait")
		}
		return nil
	}))
	mustAcquire(t, l)
	err = waitAndWork(soon(), l.Path(), func(context.Context) error { return nil })
	if !errors.As(err, new(*fasteners.HeldError)) || !errors.As(err, &pathErr) || pathErr.Op != "acquire" ||
		!errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("WithLock: %v", err)
	}
	must(t, l.Release())
}
