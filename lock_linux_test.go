package fasteners_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners"
)

func mountTmpfs(dir, options string) error {
	return unix.Mount("fasteners-test", dir, "tmpfs", 0, options)
}

func unmount(dir string) error {
	return unix.Unmount(dir, unix.MNT_DETACH)
}

// With polling out of the question, an event tells a waiter that the lock was released, that
// its holder has died, or that the file was replaced.
func TestEventsWakeWaiters(t *testing.T) {
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
			path := lockPath(t)
			s := sides(path, fasteners.WithPollInterval(time.Hour, time.Hour))[i]
			t.Run(name+"/"+s.name, func(t *testing.T) {
				p := startHolder(t, path, "write")
				done := s.goAcquire(t, cancellable(t))
				event(t, p, path)
				must(t, <-done)
				s.mustRelease(t)
			})
		}
	}
}

// Where there are no events to be had, waiting takes polling, but does not fail. Here the process
// has a descriptor left for the lock file, and none for inotify: were it the user who has no
// instance left, everybody else's locks would wait in that way, too.
func TestNoInotifyInstance(t *testing.T) {
	for resources("anon_inode:inotify").locked > 0 { // of a test before
		time.Sleep(time.Millisecond)
	}
	path := lockPath(t)
	p := startHolder(t, path, "write")
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	next, err := unix.Dup(0)
	must(t, err)
	must(t, unix.Close(next))
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(next) + 1, Max: limit.Max}))
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)

	s := sides(path)[0]
	done := s.goAcquire(t, cancellable(t))
	p.release()
	must(t, <-done)
	s.mustRelease(t)
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

// A process that is stopped while it waits gets nothing, and keeps nobody out: not if it
// waits in the kernel, but if it may give up.
func TestStoppedWaiter(t *testing.T) {
	path := lockPath(t)
	s := sides(path)[2]
	s.mustAcquire(t)
	p := startHelper(t, "hold", path, "write", "cancellable")
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
