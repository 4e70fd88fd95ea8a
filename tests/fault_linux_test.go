package tests

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/internal/posix"
)

// injectFault makes fcntl(2) return the error of f, unless that is nil, until the test ends.
func injectFault(t *testing.T, f func(cmd int, typ int16) error) {
	posix.Fault = f
	t.Cleanup(func() { posix.Fault = nil })
}

// If fcntl(2) returns EACCES although nobody holds the lock, the lock is not busy: the process may
// not lock the file.
func TestEACCESWithoutHolder(t *testing.T) {
	l := fasteners.NewInterProcessReaderWriterLock(lockPath(t))
	injectFault(t, func(cmd int, typ int16) error {
		if typ != unix.F_UNLCK && cmd != unix.F_OFD_GETLK && cmd != unix.F_GETLK {
			return unix.EACCES
		}
		return nil
	})
	for _, try := range []func() (bool, error){l.TryAcquireReadLock, l.TryAcquireWriteLock} {
		if ok, err := try(); ok || !errors.Is(err, fs.ErrPermission) {
			t.Errorf("try: %v, %v", ok, err)
		}
	}
	for _, acquire := range []func(context.Context) error{l.AcquireReadLock, l.AcquireWriteLock} {
		if err := acquire(t.Context()); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("acquire: %v", err)
		}
	}
}

// ESTALE, which a network file system returns for a file that was removed, makes acquire start
// over.
func TestESTALE(t *testing.T) {
	l := fasteners.NewInterProcessReaderWriterLock(lockPath(t))
	faults := 5
	injectFault(t, func(_ int, typ int16) error {
		if faults--; faults >= 0 {
			return unix.ESTALE
		}
		return nil
	})
	must(t, l.AcquireWriteLock(t.Context()))
	must(t, l.ReleaseWriteLock())
	injectFault(t, func(int, int16) error { return unix.ESTALE })
	if ok, err := l.TryAcquireReadLock(); ok || !errors.Is(err, unix.ESTALE) {
		t.Errorf("try: %v, %v", ok, err)
	}
}

// A timeout also bounds the wait for a goroutine that leads, while the kernel, or a server, does
// not answer it. The error does not say that somebody holds the lock: nobody knows.
func TestTimeoutBehindLeader(t *testing.T) {
	path := lockPath(t)
	asked, answer := make(chan bool), make(chan bool)
	calls := 0
	injectFault(t, func(_ int, typ int16) error {
		if calls++; calls == 1 {
			asked <- true
			<-answer
		}
		return nil
	})
	leader := make(chan error, 1)
	l := fasteners.NewInterProcessLock(path)
	go func() { leader <- l.Acquire(t.Context()) }()
	<-asked
	err := fasteners.NewInterProcessLock(path, fasteners.WithTimeout(time.Millisecond)).Acquire(t.Context())
	if !os.IsTimeout(errors.Unwrap(err)) || errors.As(err, new(*fasteners.HeldError)) {
		t.Errorf("error is %v", err)
	}
	answer <- true
	must(t, <-leader)
	must(t, l.Release())
}

// Whatever a lock call fails with, an acquire, a release or a downgrade returns it, or does
// what the call would have done, and nothing stays locked.
func TestErrnos(t *testing.T) {
	path := lockPath(t)
	must(t, os.WriteFile(path, nil, 0o666))
	// Its description is another one than that of the lock. A descriptor must not be closed
	// where locks belong to the process.
	other, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	t.Cleanup(func() { other.Close() })
	setOther := func(typ int16) {
		t.Helper()
		must(t, unix.FcntlFlock(other.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: typ}))
	}
	l := fasteners.NewInterProcessReaderWriterLock(path, fasteners.WithPollInterval(time.Millisecond, time.Millisecond))
	read, write := readerOf(l), writerOf(l)
	asks := func(cmd int) bool { return cmd == unix.F_OFD_GETLK || cmd == unix.F_GETLK }
	locks := func(cmd int, typ int16) bool { return !asks(cmd) && typ != unix.F_UNLCK }
	unlocks := func(_ int, typ int16) bool { return typ == unix.F_UNLCK }
	blocks := func(cmd int, _ int16) bool { return cmd == unix.F_OFD_SETLKW }
	held := func(t *testing.T) { write.mustAcquire(t) }
	contended := func(t *testing.T) { setOther(unix.F_WRLCK) }
	acquire := func(v variant) func() error {
		return func() error { return v.acquire(background) }
	}
	try := func(v variant) func() error {
		return func() error {
			ok, err := v.try()
			if !ok && err == nil {
				return unix.EAGAIN
			}
			return err
		}
	}
	for _, test := range []struct {
		name    string
		faults  func(cmd int, typ int16) bool
		setUp   func(*testing.T)
		do      func() error
		op      string
		release func() error
		polls   []unix.Errno // for which the call that fails is not needed
	}{
		{"try write", locks, nil, try(write), "acquire", write.release, nil},
		{"try read", locks, nil, try(read), "acquire", read.release, nil},
		{"try read, unlock", unlocks, nil, try(read), "acquire", read.release, nil},
		{"wait write", blocks, contended, acquire(write), "acquire", write.release, noWait},
		{"wait read", blocks, contended, acquire(read), "acquire", read.release, noWait},
		{"release", unlocks, held, write.release, "release", nil, nil},
		{"downgrade", locks, held, l.Downgrade, "downgrade", nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			if strings.HasPrefix(test.name, "wait") && locksAreProcessOwned() {
				return // nobody waits in the kernel
			}
			for errno := unix.Errno(1); errno < 134; errno++ {
				if errno == unix.EINTR || errno == unix.ESTALE || errno == unix.EAGAIN && test.op == "acquire" && test.polls == nil {
					continue // see TestESTALE; and EAGAIN is no error
				}
				if test.setUp != nil {
					test.setUp(t)
				}
				injectFault(t, func(cmd int, typ int16) error {
					if test.faults(cmd, typ) {
						return errno
					}
					return nil
				})
				polls := slices.Contains(test.polls, errno)
				var g group
				if polls {
					g.Go(func() error {
						waitUntilWaiting(1)
						return unix.FcntlFlock(other.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK})
					})
				}
				err := test.do()
				must(t, g.Wait())
				posix.Fault = nil
				if polls {
					must(t, err)
					must(t, test.release())
				} else {
					checkError(t, err, test.op, path, errno)
				}
				if test.name == "downgrade" {
					if typ := lockedBy(t, other); typ != unix.F_WRLCK {
						t.Errorf("%v: locked with type %d after a failed downgrade", errno, typ)
					}
					must(t, write.release())
				}
				if typ := lockedBy(t, other); typ != unix.F_UNLCK {
					t.Fatalf("%v: locked with type %d", errno, typ)
				}
				setOther(unix.F_UNLCK)
			}
		})
	}
}

// noWait are the errors that say that the kernel does not wait.
var noWait = []unix.Errno{unix.EAGAIN, unix.EINVAL, unix.ENOSYS, unix.ENOTTY, unix.EOPNOTSUPP}

// lockedBy returns how others than f have locked any part of the file.
func lockedBy(t *testing.T, f *os.File) int16 {
	t.Helper()
	lk := unix.Flock_t{Type: unix.F_WRLCK}
	must(t, unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lk))
	return lk.Type
}
