//go:build linux

package main

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"time"

	"github.com/alexflint/go-filemutex"
	"github.com/gofrs/flock"
	"github.com/juju/mutex/v2"
	"github.com/rogpeppe/go-internal/lockedfile"
	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners"
)

// A contender is one way to lock a file between processes.
type contender struct {
	name   string
	kind   kind
	module string // Go module or Python package, for its version
	// open returns a handle, with a Close method if there is something to close. It is nil for
	// a Python library: see worker.py.
	open func(path string) (fasteners.Locker, error)

	cancelable  bool // a wait can be canceled; otherwise Acquire ignores its context
	guards      bool // goroutines that share a handle exclude each other
	handoffOnly bool // polls so rarely that only the hand-off is worth measuring
}

type kind int

const (
	goLibrary kind = iota
	pythonLibrary
	systemCall
	goroutinesOnly // excludes goroutines but not processes: a lower bound for what goroutines cost
	noLock         // only waits: a lower bound for what the runtime costs
)

// Names of contenders that others are compared with.
const (
	oursName         = "fasteners"
	gofrsLockName    = "gofrs/flock Lock"
	gofrsPollName    = "gofrs/flock TryLockContext 10 ms"
	lockedfileName   = "lockedfile"
	jujuName         = "juju/mutex"
	blockingCallName = "F_OFD_SETLKW, open descriptor"
	sleepName        = "goroutines that sleep"
)

var contenders = []*contender{
	{name: oursName, open: openFasteners, cancelable: true, guards: true},
	{name: "fasteners, context.Background()", open: openUncancelable, guards: true},
	{name: gofrsLockName, module: "github.com/gofrs/flock", open: openGofrs},
	{name: gofrsPollName, module: "github.com/gofrs/flock", open: openGofrs10, cancelable: true},
	{name: "gofrs/flock TryLockContext 678 ms", module: "github.com/gofrs/flock", open: openGofrs678,
		cancelable: true, handoffOnly: true},
	{name: lockedfileName, module: "github.com/rogpeppe/go-internal", open: openLockedfile, guards: true},
	{name: "go-filemutex", module: "github.com/alexflint/go-filemutex", open: openFilemutex},
	{name: jujuName, module: "github.com/juju/mutex/v2", open: openJuju, cancelable: true, guards: true},
	{name: blockingCallName, kind: systemCall, open: openDescriptor},
	{name: "the same, path checked twice", kind: systemCall, open: openChecked},
	{name: "F_OFD_SETLKW, open and close", kind: systemCall, open: openEachTime},
	{name: "Go channel, path checked once", kind: goroutinesOnly, open: openChannel,
		cancelable: true, guards: true},
	{name: "Python fasteners", kind: pythonLibrary, module: "fasteners", cancelable: true},
	{name: "Python filelock", kind: pythonLibrary, module: "filelock", cancelable: true},
	{name: "Python portalocker", kind: pythonLibrary, module: "portalocker", cancelable: true},
	{name: sleepName, kind: noLock, open: openSleep, cancelable: true},
}

// Handles are pointers, or no larger than one, so that converting them to an interface does not
// allocate: the benchmark would count that allocation.

func openFasteners(path string) (fasteners.Locker, error) {
	return fasteners.NewInterProcessLock(path), nil
}

// An uncancelable lock is one of this library, with a context that is never done.
type uncancelable struct{ *fasteners.InterProcessLock }

func openUncancelable(path string) (fasteners.Locker, error) {
	return uncancelable{fasteners.NewInterProcessLock(path)}, nil
}

func (l uncancelable) Acquire(context.Context) error {
	return l.InterProcessLock.Acquire(context.Background())
}

type gofrs struct{ *flock.Flock }

func openGofrs(path string) (fasteners.Locker, error) { return gofrs{flock.New(path)}, nil }
func (l gofrs) Acquire(context.Context) error         { return l.Lock() }
func (l gofrs) Release() error                        { return l.Unlock() }

func (l gofrs) poll(ctx context.Context, delay time.Duration) error {
	ok, err := l.TryLockContext(ctx, delay)
	if err == nil && !ok {
		err = errors.New("not locked")
	}
	return err
}

type gofrs10 struct{ gofrs }

func openGofrs10(path string) (fasteners.Locker, error) { return gofrs10{gofrs{flock.New(path)}}, nil }
func (l gofrs10) Acquire(ctx context.Context) error     { return l.poll(ctx, 10*time.Millisecond) }

// A gofrs678 polls at the interval in the example of the package.
type gofrs678 struct{ gofrs }

func openGofrs678(path string) (fasteners.Locker, error) {
	return gofrs678{gofrs{flock.New(path)}}, nil
}
func (l gofrs678) Acquire(ctx context.Context) error { return l.poll(ctx, 678*time.Millisecond) }

type lockedFile struct {
	lockedfile.Mutex
	unlock func() // set by the holder
}

func openLockedfile(path string) (fasteners.Locker, error) {
	return &lockedFile{Mutex: lockedfile.Mutex{Path: path}}, nil
}

func (l *lockedFile) Acquire(context.Context) error {
	unlock, err := l.Lock()
	if err == nil {
		l.unlock = unlock
	}
	return err
}

func (l *lockedFile) Release() error { l.unlock(); return nil }

type fileMutex struct{ *filemutex.FileMutex }

func openFilemutex(path string) (fasteners.Locker, error) {
	m, err := filemutex.New(path)
	return fileMutex{m}, err
}

func (l fileMutex) Acquire(context.Context) error { return l.Lock() }
func (l fileMutex) Release() error                { return l.Unlock() }

// A juju locks the file juju-NAME in $TMPDIR, which start sets to the directory of path.
type juju struct {
	name   string
	holder mutex.Releaser
}

func openJuju(path string) (fasteners.Locker, error) { return &juju{name: filepath.Base(path)}, nil }

func (l *juju) Acquire(ctx context.Context) error {
	holder, err := mutex.Acquire(mutex.Spec{
		Name: l.name, Clock: systemClock{}, Delay: time.Millisecond, Cancel: ctx.Done(),
	})
	if err == nil {
		l.holder = holder
	}
	return err
}

func (l *juju) Release() error { l.holder.Release(); return nil }

type systemClock struct{}

func (systemClock) Now() time.Time                         { return time.Now() }
func (systemClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

// A descriptor is a lock of an open file description, the least that a lock between processes can
// do.
type descriptor int

func openDescriptor(path string) (fasteners.Locker, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o666)
	return descriptor(fd), err
}

func (fd descriptor) Acquire(context.Context) error {
	for {
		err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLKW, &unix.Flock_t{Type: unix.F_WRLCK})
		if err != unix.EINTR {
			return err
		}
	}
}

func (fd descriptor) Release() error {
	return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK})
}

func (fd descriptor) Close() error { return unix.Close(int(fd)) }

// A checked lock verifies that the path still names the file, after it has locked the file and
// before it unlocks it. This library has to do both, so it cannot be faster.
type checked struct {
	descriptor
	path string
	ino  uint64
}

func openChecked(path string) (fasteners.Locker, error) {
	l, err := openDescriptor(path)
	if err != nil {
		return nil, err
	}
	fd := l.(descriptor)
	var st unix.Stat_t
	err = unix.Fstat(int(fd), &st)
	return &checked{fd, path, st.Ino}, err
}

func (l *checked) Acquire(ctx context.Context) error {
	return errors.Join(l.descriptor.Acquire(ctx), l.check())
}

func (l *checked) Release() error {
	return errors.Join(l.check(), l.descriptor.Release())
}

func (l *checked) check() error {
	var st unix.Stat_t
	err := unix.Stat(l.path, &st)
	if err == nil && st.Ino != l.ino {
		err = errors.New("path names another file")
	}
	return err
}

// A channelLock does not lock the file. It excludes goroutines by a channel, in order of
// arrival, and verifies the path once for each of them.
type channelLock struct{ *checked }

var semaphore = make(chan struct{}, 1)

func openChannel(path string) (fasteners.Locker, error) {
	l, err := openChecked(path)
	if err != nil {
		return nil, err
	}
	return channelLock{l.(*checked)}, nil
}

func (l channelLock) Acquire(ctx context.Context) error {
	select {
	case semaphore <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l channelLock) Release() error {
	err := l.check()
	<-semaphore
	return err
}

// An eachTime opens the file to lock it, and closes it to release it.
type eachTime struct {
	path string
	held fasteners.Locker
}

func openEachTime(path string) (fasteners.Locker, error) { return &eachTime{path: path}, nil }

func (l *eachTime) Acquire(ctx context.Context) error {
	fd, err := openDescriptor(l.path)
	if err != nil {
		return err
	}
	l.held = fd
	return fd.Acquire(ctx)
}

func (l *eachTime) Release() error {
	return errors.Join(l.held.Release(), closeHandle(l.held))
}

// A sleep never acquires anything.
type sleep struct{}

func openSleep(string) (fasteners.Locker, error) { return sleep{}, nil }
func (sleep) Acquire(ctx context.Context) error  { <-ctx.Done(); return ctx.Err() }
func (sleep) Release() error                     { return nil }

func closeHandle(l fasteners.Locker) error {
	if c, ok := l.(io.Closer); ok {
		return c.Close()
	}
	return nil
}
