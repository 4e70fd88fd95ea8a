package tests

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/internal/posix"
	"github.com/go-fasteners/fasteners/internal/tag"
)

func init() {
	mountTmpfs = func(dir, options string) (unmount func() error, err error) {
		unmount = func() error { return unix.Unmount(dir, unix.MNT_DETACH) }
		return unmount, unix.Mount("fasteners-test", dir, "tmpfs", 0, options)
	}

	bareLock = func(path string) (acquire, release func() error) {
		fd := -1
		acquire = func() (err error) {
			fd, err = unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o666)
			if err != nil {
				return err
			}
			return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLKW, &unix.Flock_t{Type: unix.F_WRLCK})
		}
		release = func() error {
			if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK}); err != nil {
				return err
			}
			return unix.Close(fd)
		}
		return acquire, release
	}

	monotonicClock = func() time.Duration {
		var now unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
		return time.Duration(now.Nano())
	}
}

// A waiter that never polls acquires the lock when it is released, when its holder dies, and when
// the file is replaced.
func TestWaiterIsWoken(t *testing.T) {
	t.Parallel()
	events := map[string]func(p *process, path string) error{
		"release":     func(p *process, _ string) error { p.release(); return nil },
		"death":       func(p *process, _ string) error { p.kill(); return nil },
		"removal":     func(_ *process, path string) error { return os.Remove(path) },
		"move":        func(_ *process, path string) error { return os.Rename(path, path+".old") },
		"replacement": func(_ *process, path string) error { return replaceFile(path) },
	}
	for name, event := range events {
		for _, variant := range variantNames {
			for _, waitMode := range waitModes {
				t.Run(name+"/"+variant+"/"+waitMode, func(t *testing.T) {
					path := lockPath(t)
					v := variantNamed(path, variant, fasteners.WithPollInterval(time.Hour, time.Hour))
					p := startHolder(t, path, "write")
					done := v.goAcquire(t, testContext(t, waitMode))
					must(t, event(p, path))
					must(t, <-done)
					v.mustRelease(t)
				})
			}
		}
	}
}

// Another program has a lease on the lock file, as file servers do (fcntl(2)). Opening the file
// asks for the end of the lease, which may take its holder any time, but acquire waits no longer
// than its context allows.
func TestLease(t *testing.T) {
	path := lockPath(t)
	must(t, os.WriteFile(path, nil, 0o666))
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	signal.Ignore(syscall.SIGIO) // it asks for the end of the lease
	defer signal.Reset(syscall.SIGIO)
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
		skipOrFail(t, "leases")
	}
	for _, v := range variants(path) {
		v.mustTry(t, false)
		ctx, cancel := context.WithTimeout(background, 10*time.Millisecond)
		checkError(t, v.acquire(ctx), "acquire", path, context.DeadlineExceeded)
		cancel()
	}
	done := exclusive(path).goAcquire(t, background)
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	must(t, err)
	must(t, <-done)
}

// stop stops the process and waits until all of its threads have stopped: after kill(2) has
// returned, a thread may run on for long enough to acquire a lock.
func (p *process) stop() {
	p.t.Helper()
	must(p.t, p.cmd.Process.Signal(syscall.SIGSTOP))
	var status unix.WaitStatus
	_, err := unix.Wait4(p.cmd.Process.Pid, &status, unix.WUNTRACED, nil)
	for err == unix.EINTR {
		_, err = unix.Wait4(p.cmd.Process.Pid, &status, unix.WUNTRACED, nil)
	}
	must(p.t, err)
	if !status.Stopped() {
		p.t.Fatalf("the process has not stopped, but has the status %#x", status)
	}
}

// A waiting process that is stopped does not acquire the lock, and does not keep others from doing
// so.
func TestStoppedWaiter(t *testing.T) {
	for _, waitMode := range waitModes {
		path := lockPath(t)
		v := writer(path)
		v.mustAcquire(t)
		p := startWaiter(t, path, "write", waitMode)
		p.stop()
		v.mustRelease(t)
		for range 100 {
			v.mustAcquire(t)
			v.mustRelease(t)
		}
		must(t, p.cmd.Process.Signal(syscall.SIGCONT))
		p.expect("held")
	}
}

// A process waits for more locks than it may have threads waiting in the kernel, and acquires all
// of them.
func TestMoreFilesThanThreads(t *testing.T) {
	dir := t.TempDir()
	n := 2 * posix.MaxWaits
	holder := startHelper(t, holdManyHelper, dir, strconv.Itoa(n))
	holder.expect("held")
	waiter := startHelper(t, waitForManyHelper, dir, strconv.Itoa(n))
	waiter.expect("waiting")
	// Not all threads of the process: the runtime has more, for other system calls, the more so on
	// a busy machine.
	threads := waiter.number()
	t.Logf("%d threads wait in the kernel", threads)
	if threads > posix.MaxWaits {
		t.Errorf("%d threads wait in the kernel, want %d at most", threads, posix.MaxWaits)
	}
	holder.finish()
	waiter.expect("all acquired")
}

var holdManyHelper = newHelper("hold many", func(in *bufio.Reader, args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	for i := range n {
		if err := exclusive(filepath.Join(args[0], strconv.Itoa(i))).acquire(background); err != nil {
			return err
		}
	}
	fmt.Println("held")
	_, _ = io.Copy(io.Discard, in)
	return nil
})

var waitForManyHelper = newHelper("wait for many", func(in *bufio.Reader, args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	go exitAtEOF(in)
	ctx, cancel := context.WithTimeout(background, time.Hour)
	defer cancel()
	var g group
	for i := range n {
		v := variants(filepath.Join(args[0], strconv.Itoa(i)))[i%3]
		g.Go(func() error { return v.hold(ctx) })
	}
	waitUntilWaiting(n)
	fmt.Println("waiting")
	fmt.Println(goroutinesIn(inKernel, inSystem))
	if err := g.Wait(); err != nil {
		return err
	}
	fmt.Println("all acquired")
	return nil
})

// Tries that fail do not wake a waiting process: it is scheduled no more often than without them.
func TestFailedTryWakesNoWaiter(t *testing.T) {
	if locksAreProcessOwned() || os.Getenv(emulatorVar) != "" {
		t.Skip("a process that polls wakes up by itself, and so does an emulator")
	}
	path := lockPath(t)
	startHolder(t, path, "write")
	p := startWaiter(t, path, "write", "cancelable")
	for last := -1; last != p.contextSwitches(); time.Sleep(100 * time.Millisecond) {
		last = p.contextSwitches() // the process does not wait in the kernel yet
	}
	before := p.contextSwitches()
	const tries = 2000
	for range tries {
		exclusive(path).mustTry(t, false)
	}
	if n := p.contextSwitches() - before; n > tries/4 { // some are caused by rechecks of the path
		t.Errorf("%d tries have woken a waiter %d times", tries, n)
	}
}

// contextSwitches returns how often the threads of the process have blocked so far.
func (p *process) contextSwitches() (n int) {
	p.t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.cmd.Process.Pid))
	must(p.t, err)
	for _, task := range tasks {
		status, err := os.ReadFile(task)
		if err != nil {
			continue // the thread has exited
		}
		_, after, _ := strings.Cut(string(status), "\nvoluntary_ctxt_switches:")
		value, _, _ := strings.Cut(after, "\n")
		k, err := strconv.Atoi(strings.TrimSpace(value))
		must(p.t, err)
		n += k
	}
	return n
}

// The locked range tells which process holds the lock and since when, as docs/protocol.md says.
func TestHolderTag(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup // most of the time is waiting
	for variant, typ := range map[string]int16{"exclusive": unix.F_WRLCK, "write": unix.F_WRLCK, "read": unix.F_RDLCK} {
		path := lockPath(t)
		p := startHolder(t, path, variant)
		checkTag(t, path, p, typ)
		p.release()

		// The tag of a holder that had to wait tells when it acquired the lock, not when it began
		// to wait.
		v := exclusive(path)
		v.mustAcquire(t)
		p = startWaiter(t, path, variant, "cancelable")
		wg.Go(func() {
			time.Sleep(1100 * time.Millisecond) // the time in a tag is in seconds
			released := time.Now().Truncate(time.Second)
			if err := v.release(); err != nil {
				t.Error(err)
			}
			p.expect("held")
			if acquired := checkTag(t, path, p, typ); acquired.Before(released) {
				t.Errorf("%s lock was acquired at %v according to its tag, and was released at %v", variant, acquired, released)
			}
			p.release()
		})
	}
	wg.Wait()
}

// checkTag checks that p holds the lock, according to F_OFD_GETLK, and returns since when.
func checkTag(t *testing.T, path string, p *process, typ int16) time.Time {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	lk := unix.Flock_t{Type: unix.F_WRLCK}
	must(t, unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lk))
	if lk.Type != typ || lk.Start != 0 || lk.Len < 1<<62 {
		t.Fatalf("lock is %+v", lk)
	}
	holder := tag.Tag(lk.Len - 1<<62)
	age := time.Since(holder.Time())
	if holder.PID() != p.cmd.Process.Pid || holder.Namespace() != tag.New().Namespace() || age < 0 || age > time.Minute {
		t.Errorf("tag has PID %d, namespace %d, time %v", holder.PID(), holder.Namespace(), holder.Time())
	}
	return holder.Time()
}

// If the program ignores SIGURG, by which the package interrupts a wait in the kernel, a wait still
// ends when its context is done.
func TestSIGURGIgnored(t *testing.T) {
	path := lockPath(t)
	holder := startHolder(t, path, "write")
	p := startHelper(t, ignoreSIGURGHelper, path)
	p.expect("canceled")
	p.expect("waiting")
	holder.release()
	p.expect("held")
}

var ignoreSIGURGHelper = newHelper("ignore SIGURG", func(_ *bufio.Reader, args []string) error {
	signal.Ignore(syscall.SIGURG)
	ctx, cancel := context.WithTimeout(background, 20*time.Millisecond)
	defer cancel()
	if err := exclusive(args[0]).acquire(ctx); !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("error is %v", err)
	}
	fmt.Println("canceled")
	fmt.Println("waiting")
	if err := exclusive(args[0]).acquire(background); err != nil {
		return err
	}
	fmt.Println("held")
	return nil
})

// chattr sets an attribute of a file until the test ends.
func chattr(t *testing.T, attribute, path string) {
	t.Helper()
	if out, err := exec.Command("chattr", "+"+attribute, path).CombinedOutput(); err != nil {
		skipOrFail(t, fmt.Sprintf("chattr, and the right to use it (%v: %s)", err, out))
	}
	t.Cleanup(func() { must(t, exec.Command("chattr", "-"+attribute, path).Run()) })
}

// Files that cannot be opened for both reading and writing can be locked as far as they can be
// opened.
func TestUnusualFiles(t *testing.T) {
	t.Run("append-only", func(t *testing.T) {
		path := lockPath(t)
		must(t, os.WriteFile(path, nil, 0o666))
		chattr(t, "a", path)
		for _, v := range variants(path) {
			v.mustTry(t, true)
		}
	})
	t.Run("immutable", func(t *testing.T) {
		path := lockPath(t)
		must(t, os.WriteFile(path, nil, 0o666))
		chattr(t, "i", path)
		checkReadersOnly(t, path, fs.ErrPermission)
	})
	t.Run("running program", func(t *testing.T) {
		path := lockPath(t)
		program, err := exec.LookPath("sleep")
		must(t, err)
		content, err := os.ReadFile(program)
		must(t, err)
		must(t, os.WriteFile(path, content, 0o777))
		cmd := exec.Command(path, "3600")
		for err = cmd.Start(); errors.Is(err, syscall.ETXTBSY); err = cmd.Start() {
			// A child process of another test has inherited the descriptor that the file was
			// written through, and has not executed its program yet.
			cmd = exec.Command(path, "3600")
		}
		must(t, err)
		defer cmd.Wait()
		defer cmd.Process.Kill()
		checkReadersOnly(t, path, syscall.ETXTBSY)
	})
}

// checkReadersOnly checks that only readers can acquire the lock. Writers get writeError.
func checkReadersOnly(t *testing.T, path string, writeError error) {
	t.Helper()
	for _, v := range variants(path) {
		if v.shared {
			v.mustTry(t, true)
		} else {
			checkError(t, v.acquire(background), "acquire", path, writeError)
		}
	}
}
