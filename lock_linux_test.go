package fasteners_test

import (
	"context"
	"os"
	"os/signal"
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

// Where there are no events to be had, waiting takes polling, but does not fail.
func TestNoInotifyInstancesLeft(t *testing.T) {
	var all []int
	defer func() {
		for _, fd := range all {
			unix.Close(fd)
		}
	}()
	for {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if err == unix.EMFILE {
			break
		}
		must(t, err)
		all = append(all, fd)
	}
	path := lockPath(t)
	p := startHolder(t, path, "write")
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
