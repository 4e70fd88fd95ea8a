package fasteners_test

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
	"slices"
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

func mountTmpfs(dir, options string) error {
	return unix.Mount("fasteners-test", dir, "tmpfs", 0, options)
}

func unmount(dir string) error {
	return unix.Unmount(dir, unix.MNT_DETACH)
}

// With polling out of the question, a waiter gets the lock when it is released, or its holder has died,
// or the file was replaced.
func TestWaitersAreWoken(t *testing.T) {
	events := map[string]func(t *testing.T, p *process, path string){
		"release": func(t *testing.T, p *process, path string) { p.release() },
		"death":   func(t *testing.T, p *process, path string) { p.kill() },
		"removal": func(t *testing.T, p *process, path string) { must(t, os.Remove(path)) },
		"move":    func(t *testing.T, p *process, path string) { must(t, os.Rename(path, path+".old")) },
		"replacement": func(t *testing.T, p *process, path string) {
			must(t, os.WriteFile(path+".new", nil, 0o666))
			must(t, os.Rename(path+".new", path))
		},
	}
	for name, event := range events {
		for i := range sides("") {
			for waiting, ctx := range map[string]context.Context{"cancelable": cancellable(t), "background": background} {
				path := lockPath(t)
				s := sides(path, fasteners.WithPollInterval(time.Hour, time.Hour))[i]
				t.Run(name+"/"+s.name+"/"+waiting, func(t *testing.T) {
					p := startHolder(t, path, "write")
					done := s.goAcquire(t, ctx)
					event(t, p, path)
					must(t, <-done)
					s.mustRelease(t)
				})
			}
		}
	}
}

// Somebody has a lease on the lock file, as file servers do. To open the file breaks it, which
// takes as long as he likes, but nobody waits for that beyond his context.
func TestLease(t *testing.T) {
	path := lockPath(t)
	must(t, os.WriteFile(path, nil, 0o666))
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	signal.Ignore(syscall.SIGIO) // which asks for it
	defer signal.Reset(syscall.SIGIO)
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
		missing(t, "leases")
	}
	for _, s := range sides(path) {
		s.mustTry(t, false)
		ctx, cancel := context.WithTimeout(background, 10*time.Millisecond)
		checkError(t, s.acquire(ctx), "acquire", path, context.DeadlineExceeded)
		cancel()
	}
	done := sides(path)[0].goAcquire(t, background)
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	must(t, err)
	must(t, <-done)
}

// What to compare with: the kernel's own way to wait.
var waysOfProcesses = []string{"ours", "blocking"}

// blockingLock returns the bare system calls of a lock that waits in the kernel.
func blockingLock(path string) (acquire, release func() error) {
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

// From just before a process releases the lock, after it has held it for long, until another one
// has it: with a context that can be done, and by the bare system calls on both sides.
func BenchmarkHandOff(b *testing.B) {
	for _, way := range []string{"cancellable", "background", "bare"} {
		b.Run(way, func(b *testing.B) {
			path := lockPath(b)
			acquire, release := lockIn(b, path, way)
			p := startHelper(b, "hand-off", path, way)
			var took []time.Duration
			for b.Loop() {
				must(b, acquire())
				p.say("acquire")
				time.Sleep(50 * time.Millisecond)
				from := monotonic()
				must(b, release())
				to, err := time.ParseDuration(p.line())
				must(b, err)
				took = append(took, to-from)
			}
			slices.Sort(took)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "µs-median")
			b.ReportMetric(float64(took[len(took)*9/10].Microseconds()), "µs-p90")
		})
	}
}

// lockIn returns a lock that waits in one way.
func lockIn(t testing.TB, path, way string) (acquire, release func() error) {
	ctx := background
	switch way {
	case "bare":
		return blockingLock(path)
	case "cancellable":
		ctx = cancellable(t)
	}
	l := fasteners.NewInterProcessLock(path)
	return func() error { return l.Acquire(ctx) }, l.Release
}

func init() {
	helpers["hand-off"] = func(in *bufio.Reader, args []string) error {
		ctx, cancel := context.WithCancel(background)
		defer cancel()
		l := fasteners.NewInterProcessLock(args[0])
		acquire, release := func() error { return l.Acquire(ctx) }, l.Release
		switch args[1] {
		case "background":
			acquire = func() error { return l.Acquire(background) }
		case "bare":
			acquire, release = blockingLock(args[0])
		}
		for {
			if _, err := in.ReadString('\n'); err != nil {
				return nil
			}
			if err := acquire(); err != nil {
				return err
			}
			now := monotonic()
			if err := release(); err != nil {
				return err
			}
			fmt.Println(now)
		}
	}
}

// monotonic is the same clock in all processes.
func monotonic() time.Duration {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	return time.Duration(now.Nano())
}

// What it costs to wait for five seconds with a deadline, for a process with so many goroutines.
func BenchmarkWaiting(b *testing.B) {
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			path := lockPath(b)
			startHolder(b, path, "write")
			for b.Loop() {
				p := startHelper(b, "wait", path, fmt.Sprint(n))
				cpu, err := time.ParseDuration(p.line())
				must(b, err)
				b.ReportMetric(ms(cpu), "ms-cpu")
				p.finish()
			}
		})
	}
}

func init() {
	helpers["wait"] = func(_ *bufio.Reader, args []string) error {
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(background, 5*time.Second)
		defer cancel()
		before := cpuTime()
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() { _ = fasteners.NewInterProcessLock(args[0]).Acquire(ctx) })
		}
		wg.Wait()
		fmt.Println(cpuTime() - before)
		return nil
	}
}

func cpuTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// stop stops the process, all of it: one thread may run on for long after kill(2) has
// returned, and get a lock that is released meanwhile.
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

// A process that is stopped while it waits gets nothing, and keeps nobody out.
func TestStoppedWaiter(t *testing.T) {
	for _, waiting := range []string{"blocked", "cancellable"} {
		path := lockPath(t)
		s := sides(path)[2]
		s.mustAcquire(t)
		p := startHelper(t, "hold", path, "write", waiting)
		p.expect("waiting")
		p.stop()
		s.mustRelease(t)
		for range 100 {
			s.mustAcquire(t)
			s.mustRelease(t)
		}
		must(t, p.cmd.Process.Signal(syscall.SIGCONT))
		p.expect("held")
	}
}

// A process waits for more files than it may have threads in the kernel, and gets the locks of all.
func TestMoreFilesThanThreads(t *testing.T) {
	dir := t.TempDir()
	n := 2 * posix.MaxWaits
	holder := startHelper(t, "hold many", dir, strconv.Itoa(n))
	holder.expect("held")
	waiter := startHelper(t, "wait for many", dir, strconv.Itoa(n))
	waiter.expect("waiting")
	threads, err := strconv.Atoi(waiter.line())
	must(t, err)
	t.Logf("%d threads", threads)
	if threads > n*3/4 { // the runtime has others, for calls that do not wait
		t.Errorf("%d threads", threads)
	}
	holder.finish()
	waiter.expect("all had it")
}

func init() {
	helpers["hold many"] = func(in *bufio.Reader, args []string) error {
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		for i := range n {
			if err := sides(filepath.Join(args[0], strconv.Itoa(i)))[0].acquire(background); err != nil {
				return err
			}
		}
		fmt.Println("held")
		_, _ = io.Copy(io.Discard, in)
		return nil
	}
	helpers["wait for many"] = func(in *bufio.Reader, args []string) error {
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		go exitAtEnd(in)
		ctx, cancel := context.WithTimeout(background, time.Hour)
		defer cancel()
		var wg sync.WaitGroup
		errs := make(chan error, n)
		for i := range n {
			s := sides(filepath.Join(args[0], strconv.Itoa(i)))[i%3]
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
		waitUntilWaiting(n)
		fmt.Println("waiting")
		fmt.Println(resources(args[0]).threads)
		wg.Wait()
		close(errs)
		if err := <-errs; err != nil {
			return err
		}
		fmt.Println("all had it")
		return nil
	}
}

// A try that fails wakes nobody: a process that waits is switched to no more often than by itself.
func TestFailedTryWakesNobody(t *testing.T) {
	if os.Getenv(processOwnedVar) != "" || os.Getenv(emulatorVar) != "" {
		t.Skip("a process that polls wakes up by itself, and so does an emulator")
	}
	path := lockPath(t)
	startHolder(t, path, "write")
	p := startHelper(t, "hold", path, "write", "cancellable")
	p.expect("waiting")
	switches := func() (n int) {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.cmd.Process.Pid))
		must(t, err)
		for _, task := range tasks {
			status, err := os.ReadFile(task)
			if err != nil {
				continue // the thread has ended
			}
			_, after, _ := strings.Cut(string(status), "\nvoluntary_ctxt_switches:")
			value, _, _ := strings.Cut(after, "\n")
			k, err := strconv.Atoi(strings.TrimSpace(value))
			must(t, err)
			n += k
		}
		return n
	}
	for last := -1; last != switches(); time.Sleep(100 * time.Millisecond) {
		last = switches() // it is still on its way to the kernel
	}
	before := switches()
	const tries = 2000
	for range tries {
		sides(path)[0].mustTry(t, false)
	}
	if n := switches() - before; n > tries/4 { // some are of rechecks
		t.Errorf("%d tries have woken a waiter %d times", tries, n)
	}
}

// The lock tells who holds it: F_OFD_GETLK returns a range whose length has the tag.
func TestTagOfTheHolder(t *testing.T) {
	path := lockPath(t)
	check := func(p *process, typ int16) {
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
		want := tag.New()
		age := time.Since(holder.Time())
		if holder.PID() != p.cmd.Process.Pid || holder.Namespace() != want.Namespace() || age < 0 || age > time.Minute {
			t.Errorf("tag has PID %d, namespace %d, time %v", holder.PID(), holder.Namespace(), holder.Time())
		}
	}
	for side, typ := range map[string]int16{"exclusive": unix.F_WRLCK, "write": unix.F_WRLCK, "read": unix.F_RDLCK} {
		p := startHolder(t, path, side)
		check(p, typ)
		p.release()

		// One that has waited names the time at which it got the lock, not that at which it began to wait.
		s := sides(path)[0]
		s.mustAcquire(t)
		p = startHelper(t, "hold", path, side, "cancellable")
		p.expect("waiting")
		time.Sleep(1100 * time.Millisecond) // for another second
		released := time.Now().Truncate(time.Second)
		s.mustRelease(t)
		p.expect("held")
		check(p, typ)
		f, err := os.Open(path)
		must(t, err)
		lk := unix.Flock_t{Type: unix.F_WRLCK}
		must(t, unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lk))
		f.Close()
		if got := tag.Tag(lk.Len - 1<<62).Time(); got.Before(released) {
			t.Errorf("%s lock is of %v, and was released at %v", side, got, released)
		}
		p.release()
	}
}

// Where SIGURG is ignored a wait ends with its context all the same.
func TestSIGURGIsIgnored(t *testing.T) {
	path := lockPath(t)
	holder := startHolder(t, path, "write")
	p := startHelper(t, "ignore SIGURG", path)
	p.expect("canceled")
	p.expect("waiting")
	holder.release()
	p.expect("held")
}

func init() {
	helpers["ignore SIGURG"] = func(_ *bufio.Reader, args []string) error {
		signal.Ignore(syscall.SIGURG)
		ctx, cancel := context.WithTimeout(background, 20*time.Millisecond)
		defer cancel()
		if err := sides(args[0])[0].acquire(ctx); !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("error is %v", err)
		}
		fmt.Println("canceled")
		fmt.Println("waiting")
		if err := sides(args[0])[0].acquire(background); err != nil {
			return err
		}
		fmt.Println("held")
		return nil
	}
}

// chattr sets an attribute of a file until the end of the test.
func chattr(t *testing.T, attribute, path string) {
	t.Helper()
	if out, err := exec.Command("chattr", "+"+attribute, path).CombinedOutput(); err != nil {
		missing(t, fmt.Sprintf("chattr, and the right to use it (%v: %s)", err, out))
	}
	t.Cleanup(func() { must(t, exec.Command("chattr", "-"+attribute, path).Run()) })
}

// Files that cannot be opened for reading and writing can be locked, as far as they can be opened.
func TestUnusualFiles(t *testing.T) {
	t.Run("append-only", func(t *testing.T) {
		path := lockPath(t)
		must(t, os.WriteFile(path, nil, 0o666))
		chattr(t, "a", path)
		for _, s := range sides(path) {
			s.mustTry(t, true)
		}
	})
	t.Run("immutable", func(t *testing.T) {
		path := lockPath(t)
		must(t, os.WriteFile(path, nil, 0o666))
		chattr(t, "i", path)
		for _, s := range sides(path) {
			if s.shared {
				s.mustTry(t, true)
			} else {
				checkError(t, s.acquire(background), "acquire", path, fs.ErrPermission)
			}
		}
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
			// A child of another test has the file open for writing until it executes its own.
			cmd = exec.Command(path, "3600")
		}
		must(t, err)
		defer cmd.Wait()
		defer cmd.Process.Kill()
		for _, s := range sides(path) {
			if s.shared {
				s.mustTry(t, true)
			} else {
				checkError(t, s.acquire(background), "acquire", path, syscall.ETXTBSY)
			}
		}
	})
}
