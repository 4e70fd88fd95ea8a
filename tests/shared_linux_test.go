package tests

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/internal/posix"
)

// How an acquire through a shared description fails in TestFailureWithFile.
var failures = []string{"refused", "timed out", "polling timed out", "canceled", "error of a try", "error of a wait"}

// fail acquires a lock on the open file description of f, which has to fail in the given way, and
// reports what came out. It is canceled when ctx is done.
func fail(ctx context.Context, f *os.File, mode, failure string) string {
	var opts []fasteners.Option
	switch failure {
	case "timed out", "polling timed out":
		opts = append(opts, fasteners.WithTimeout(5*time.Millisecond))
	}
	posix.Fault = func(cmd int, typ int16) error {
		blocks := cmd == unix.F_OFD_SETLKW
		switch {
		case failure == "polling timed out" && blocks:
			return unix.EOPNOTSUPP
		case failure == "error of a try" && cmd == unix.F_OFD_SETLK && typ != unix.F_UNLCK, failure == "error of a wait" && blocks:
			return unix.EIO
		}
		return nil
	}
	defer func() { posix.Fault = nil }()
	v := variantOf(fasteners.NewInterProcessReaderWriterLock("given", append(opts, fasteners.WithFile(f))...), mode)
	if failure == "refused" {
		ok, err := v.try()
		if !ok && err == nil {
			return failure
		}
		return fmt.Sprint(ok, err)
	}
	err := v.acquire(ctx)
	for _, end := range []struct {
		err      error
		failures []string
	}{
		{context.DeadlineExceeded, failures[1:3]},
		{context.Canceled, failures[3:4]},
		{unix.EIO, failures[4:]},
	} {
		if errors.Is(err, end.err) && slices.Contains(end.failures, failure) {
			return failure
		}
	}
	return fmt.Sprint(err)
}

func variantOf(l *fasteners.InterProcessReaderWriterLock, mode string) variant {
	if mode == "read" {
		return readerOf(l)
	}
	return writerOf(l)
}

var failHelper = newHelper("fail", func(in *bufio.Reader, args []string) error {
	fmt.Println(fail(cancelAtEOF(in), os.NewFile(3, "given"), args[0], args[1]))
	return nil
})

// observeHelper tells, for each line of its input, how others have locked any part of the file.
var observeHelper = newHelper("observe", func(in *bufio.Reader, args []string) error {
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		if _, err := in.ReadString('\n'); err != nil {
			return nil // the test has ended
		}
		lk := unix.Flock_t{Type: unix.F_WRLCK, Len: 1}
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lk); err != nil {
			return err
		}
		fmt.Println(map[int16]string{unix.F_RDLCK: "read", unix.F_WRLCK: "write", unix.F_UNLCK: "not"}[lk.Type])
	}
})

// However an acquire fails, the lock that is held through the same open file description stays as
// it was: that of a parent process from which this one has the description, or that of another
// Option.
func TestFailureWithFile(t *testing.T) {
	skipProcessOwned(t)
	path := lockPath(t)
	must(t, os.WriteFile(path, nil, 0o666))
	other, err := os.OpenFile(path, os.O_RDWR, 0) // it keeps the acquire waiting
	must(t, err)
	defer other.Close()
	setOther := func(typ int16, start, length int64) {
		t.Helper()
		must(t, unix.FcntlFlock(other.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: typ, Start: start, Len: length}))
	}
	observer := startHelper(t, observeHelper, path)
	for _, held := range []string{"not", "read", "write"} {
		for _, by := range []string{"parent", "other Option"} {
			for _, mode := range []string{"read", "write"} {
				for _, failure := range failures {
					if held == "write" && mode == "write" && failure != "error of a try" {
						continue // there is nobody to wait for
					}
					t.Run(strings.Join([]string{held, by, mode, failure}, "/"), func(t *testing.T) {
						f, err := os.OpenFile(path, os.O_RDWR, 0)
						must(t, err)
						defer f.Close()
						holder := variantOf(fasteners.NewInterProcessReaderWriterLock("given", fasteners.WithFile(f)), held)
						if held != "not" {
							holder.mustAcquire(t)
						}
						switch {
						case failure == "error of a try":
						case held == "not":
							setOther(unix.F_WRLCK, 0, 0)
						case mode == "write":
							setOther(unix.F_RDLCK, 0, 0)
						default:
							setOther(unix.F_WRLCK, 1<<63-2, 0) // as a writer that waits
						}
						ctx, cancel := context.WithCancel(background)
						defer cancel()
						var out string
						if by == "parent" {
							cmd := helperCommand(failHelper, mode, failure)
							cmd.ExtraFiles = []*os.File{f}
							p := start(t, cmd)
							if failure == "canceled" {
								waitForWaiter(t, path)
								p.in.Close()
							}
							out = p.line()
							p.kill()
						} else {
							done := make(chan string, 1)
							go func() { done <- fail(ctx, f, mode, failure) }()
							if failure == "canceled" {
								waitForWaiter(t, path)
								cancel()
							}
							out = <-done
						}
						if out != failure {
							t.Errorf("acquire: %s", out)
						}
						setOther(unix.F_UNLCK, 0, 0)
						observer.say("look")
						observer.expect(held)
						if held != "not" {
							holder.mustRelease(t)
							observer.say("look")
							observer.expect("not")
						}
					})
				}
			}
		}
	}
}

// waitForWaiter returns when somebody waits for the lock in the kernel.
func waitForWaiter(t *testing.T, path string) {
	t.Helper()
	st, err := posix.Stat(path)
	must(t, err)
	locks := func(st posix.FileInfo) []posix.Lock {
		all, _ := posix.LocksOf(st.Dev, st.Ino, nil)
		return all
	}
	blocked := func(l posix.Lock) bool { return l.Blocked }
	for !slices.ContainsFunc(locks(st), blocked) {
		time.Sleep(time.Millisecond)
	}
}

// An acquire through a description converts the lock that is held through it. Others see the
// converted lock, and a downgrade admits readers.
func TestConversionWithFile(t *testing.T) {
	skipProcessOwned(t)
	path := lockPath(t)
	must(t, os.WriteFile(path, nil, 0o666))
	observer := startHelper(t, observeHelper, path)
	for _, held := range []string{"not", "read", "write"} {
		for _, mode := range []string{"read", "write"} {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			must(t, err)
			first := fasteners.NewInterProcessReaderWriterLock("given", fasteners.WithFile(f))
			second := fasteners.NewInterProcessReaderWriterLock("given", fasteners.WithFile(f))
			if held != "not" {
				variantOf(first, held).mustAcquire(t)
			}
			v := variantOf(second, mode)
			v.mustAcquire(t)
			observer.say("look")
			observer.expect(mode)
			if mode == "write" {
				must(t, second.Downgrade())
				v = readerOf(second)
			}
			mustTryInProcess(t, path, "read", true)
			mustTryInProcess(t, path, "write", false)
			v.mustRelease(t)
			observer.say("look")
			observer.expect("not")
			must(t, f.Close())
		}
	}
}

// A lock whose File was called does not share a later hold with those that have that file.
func TestLentWithFile(t *testing.T) {
	skipProcessOwned(t)
	path := lockPath(t)
	for range 20 {
		l := fasteners.NewInterProcessLock(path)
		must(t, l.Acquire(background))
		f, err := l.File()
		must(t, err)
		must(t, l.Release()) // its descriptor stays open for a moment
		other := fasteners.NewInterProcessLock("given", fasteners.WithFile(f))
		must(t, other.Acquire(background))
		if ok, err := l.TryAcquire(); ok || err != nil {
			t.Fatalf("acquired beside the process that has the file: %t, %v", ok, err)
		}
		must(t, other.Release())
		must(t, f.Close())
	}
}
