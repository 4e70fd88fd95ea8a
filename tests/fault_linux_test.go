package tests

import (
	"context"
	"errors"
	"io/fs"
	"os"
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
