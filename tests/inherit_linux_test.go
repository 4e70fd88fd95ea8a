package tests

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/internal/posix"
)

// inheritedHelper has a descriptor of a lock file as its descriptor 3. It does what its argument
// says, and exits when its input ends, without a release.
var inheritedHelper = newHelper("inherited", func(in *bufio.Reader, args []string) error {
	if args[0] == "acquire" {
		l := fasteners.NewInterProcessLock("given", fasteners.WithFile(os.NewFile(3, "given")))
		if err := l.Acquire(background); err != nil {
			return err
		}
	}
	fmt.Println(os.Getpid())
	_, err := io.Copy(io.Discard, in)
	return err
})

// startInherited starts a process that inherits f.
func startInherited(t *testing.T, f *os.File, do string) *process {
	t.Helper()
	cmd := helperCommand(inheritedHelper, do)
	cmd.ExtraFiles = []*os.File{f}
	return start(t, cmd)
}

// leaveHelper holds a lock, lets a process inherit it, and leaves that behind when it is killed.
var leaveHelper = newHelper("leave", func(in *bufio.Reader, args []string) error {
	l := fasteners.NewInterProcessLock(args[0])
	if err := l.Acquire(background); err != nil {
		return err
	}
	f, err := l.File()
	if err != nil {
		return err
	}
	child := helperCommand(inheritedHelper, "nothing")
	child.ExtraFiles, child.Stdin, child.Stdout = []*os.File{f}, os.Stdin, os.Stdout
	if err := child.Start(); err != nil {
		return err
	}
	select {}
})

// A process that has inherited the descriptor holds the lock when the one that has acquired it is
// killed.
func TestFileOutlivesProcess(t *testing.T) {
	skipProcessOwned(t)
	path := lockPath(t)
	l := fasteners.NewInterProcessLock(path)
	parent := startHelper(t, leaveHelper, path)
	child := parent.number()
	must(t, parent.cmd.Process.Kill())
	parent.cmd.Process.Wait()
	mustTryInProcess(t, path, "exclusive", false)
	holders, err := l.Holders()
	must(t, err)
	if len(holders) != 1 || holders[0].PID != child {
		t.Errorf("holders are %v, want the child %d", holders, child)
	}
	parent.in.Close() // it is the input of the child, too
	must(t, l.Acquire(background))
	must(t, l.Release())
}

// A release ends the hold of all that have the descriptor, whatever type of lock it is of.
func TestReleaseOfInheritedLock(t *testing.T) {
	skipProcessOwned(t)
	path := lockPath(t)
	l, rw := fasteners.NewInterProcessLock(path), fasteners.NewInterProcessReaderWriterLock(path)
	for _, test := range []struct {
		variant
		file func() (*os.File, error)
	}{
		{exclusiveOf(l), l.File},
		{readerOf(rw), rw.File},
		{writerOf(rw), rw.File},
	} {
		_, err := test.file()
		checkError(t, err, "duplicate", path, fasteners.ErrNotAcquired)
		test.mustAcquire(t)
		f, err := test.file()
		must(t, err)
		child := startInherited(t, f, "nothing")
		child.number()
		must(t, f.Close())
		mustTryInProcess(t, path, "exclusive", false)
		test.mustRelease(t)
		mustTryInProcess(t, path, "exclusive", true)
		child.finish()
	}
}

// A lock of an open file description stays when the process that has acquired it exits.
func TestWithFile(t *testing.T) {
	skipProcessOwned(t)
	path := lockPath(t)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	must(t, err)
	defer f.Close()
	p := startInherited(t, f, "acquire")
	p.number()
	mustTryInProcess(t, path, "exclusive", false)
	p.finish()
	mustTryInProcess(t, path, "exclusive", false)

	// The description that holds the lock acquires it again; that of the path waits for it.
	own := fasteners.NewInterProcessReaderWriterLock("given", fasteners.WithFile(f), fasteners.WithFile(nil))
	must(t, own.AcquireReadLock(background))
	mustTryInProcess(t, path, "read", true)
	mustTryInProcess(t, path, "exclusive", false)
	must(t, own.ReleaseReadLock())
	mustTryInProcess(t, path, "exclusive", true)

	other := startHolder(t, path, "exclusive")
	l := fasteners.NewInterProcessLock("given", fasteners.WithFile(f), fasteners.WithTimeout(time.Millisecond))
	err = l.Acquire(background)
	checkError(t, err, "acquire", "given", context.DeadlineExceeded)
	held := new(fasteners.HeldError)
	if !errors.As(err, &held) || len(held.Holders) != 1 || held.Holders[0].PID != other.cmd.Process.Pid {
		t.Errorf("error is %v, want one that names process %d", err, other.cmd.Process.Pid)
	}
	other.release()
	l = fasteners.NewInterProcessLock("given", fasteners.WithFile(f))
	must(t, os.Remove(path)) // nobody looks at the path
	must(t, l.Acquire(background))
	if ok, err := l.TryAcquire(); ok || err != nil {
		t.Errorf("acquired twice: %t, %v", ok, err)
	}
	must(t, l.Release())

	// Locks that are made with one Option exclude each other.
	option := fasteners.WithFile(f)
	l, rw := fasteners.NewInterProcessLock("given", option), fasteners.NewInterProcessReaderWriterLock("given", option)
	must(t, l.Acquire(background))
	if ok, err := rw.TryAcquireReadLock(); ok || err != nil {
		t.Errorf("acquired beside another lock of the same Option: %t, %v", ok, err)
	}
	must(t, l.Release())
}

func TestWithFileModes(t *testing.T) {
	skipProcessOwned(t)
	path := lockPath(t)
	must(t, os.WriteFile(path, nil, 0o666))
	for _, test := range []struct {
		flags       int
		read, write bool
	}{
		{os.O_RDONLY, true, false},
		{os.O_WRONLY, false, true},
		{os.O_RDWR, true, true},
	} {
		f, err := os.OpenFile(path, test.flags, 0)
		must(t, err)
		l := fasteners.NewInterProcessReaderWriterLock(path, fasteners.WithFile(f))
		check := func(ok bool, err error, want bool, release func() error) {
			t.Helper()
			switch {
			case want:
				must(t, err)
				must(t, release())
			case ok:
				t.Error("acquired through a file that does not permit it")
			default:
				checkError(t, err, "acquire", path, fs.ErrPermission)
			}
		}
		ok, err := l.TryAcquireReadLock()
		check(ok, err, test.read, l.ReleaseReadLock)
		ok, err = l.TryAcquireWriteLock()
		check(ok, err, test.write, l.ReleaseWriteLock)
		must(t, f.Close())
	}
}

// The holder is known even if the file is open only for writing.
func TestHoldersOfWithFile(t *testing.T) {
	skipProcessOwned(t)
	path := lockPath(t)
	other := startHolder(t, path, "exclusive")
	for _, flag := range []int{os.O_RDONLY, os.O_WRONLY, os.O_RDWR} {
		f, err := os.OpenFile(path, flag, 0)
		must(t, err)
		holders, err := fasteners.NewInterProcessLock("given", fasteners.WithFile(f)).Holders()
		must(t, err)
		if len(holders) != 1 || holders[0].PID != other.cmd.Process.Pid {
			t.Errorf("holders are %v, want process %d", holders, other.cmd.Process.Pid)
		}
		must(t, f.Close())
	}
	other.release()
}

// Where locks belong to the process, no descriptor may be closed on the way to the error: that
// would drop a lock.
func TestInheritedLockOfProcess(t *testing.T) {
	was := posix.ForceProcessOwned.Swap(true)
	defer posix.ForceProcessOwned.Store(was)
	path := lockPath(t)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	l := fasteners.NewInterProcessLock(path)
	must(t, l.Acquire(background))
	_, err = l.File()
	checkError(t, err, "duplicate", path, errors.ErrUnsupported)
	err = fasteners.NewInterProcessLock("given", fasteners.WithFile(f)).Acquire(background)
	checkError(t, err, "acquire", "given", errors.ErrUnsupported)
	mustTryInProcess(t, path, "exclusive", false)
	must(t, l.Release())
}

// skipProcessOwned skips the test if locks belong to the process: TestInheritedLockOfProcess is for
// that.
func skipProcessOwned(t *testing.T) {
	t.Helper()
	if posix.ForceProcessOwned.Load() {
		t.Skip("locks belong to the process here")
	}
}

// A writer that is killed while it waits, through a descriptor that others keep, does not keep
// readers out.
func TestKilledWaiterWithFile(t *testing.T) {
	skipProcessOwned(t)
	path := lockPath(t)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	must(t, err)
	defer f.Close()
	reader := startHolder(t, path, "read")
	waiter := startInherited(t, f, "acquire")
	l := fasteners.NewInterProcessLock(path)
	for waits := false; !waits; { // and a moment later it would lock pending, if it did
		holders, err := l.Holders()
		must(t, err)
		waits = slices.ContainsFunc(holders, func(h fasteners.Holder) bool { return h.Waiting })
	}
	mustTryInProcess(t, path, "read", true)
	waiter.kill()
	mustTryInProcess(t, path, "read", true)
	reader.release()
}
