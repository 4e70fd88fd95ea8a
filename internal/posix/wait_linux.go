package posix

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	unsupported = 0
	getlkOFD    = unix.F_OFD_GETLK
	setlkOFD    = unix.F_OFD_SETLK
)

var waits atomic.Int32

// CanWait reports whether Wait may be supported. What depends on the thread, its signals, and
// other waits is up to Wait.
func (d *Descriptor) CanWait() bool { return !d.OwnedByProcess() && d.IsLocal() }

// Wait locks r, blocking until it has done so or ctx is done. In the latter case it returns
// ctx.Err(), and has changed nothing. If the kernel grants the lock at the moment at which ctx is
// done, Wait may return nil.
//
// It returns errors.ErrUnsupported if the kernel cannot wait, could not be made to end the wait,
// or if there are not enough threads. The next call may succeed.
func (d *Descriptor) Wait(ctx context.Context, typ int16, r Range) error {
	if !d.CanWait() || !signalsInterrupt() {
		return errors.ErrUnsupported
	}
	n := waits.Add(1)
	defer waits.Add(-1)
	if !mayTakeThread(n) {
		return errors.ErrUnsupported
	}
	w := &wait{flock: newFlock(typ, r)}
	var err error
	if n <= keptThreads {
		err = w.block(ctx, d.FD)
		runtime.UnlockOSThread()
	} else {
		done := make(chan error)
		go func() { done <- w.block(ctx, d.FD) }() // the thread ends, as it is still locked
		err = <-done
	}
	switch {
	case err == nil:
		d.form.Store(ofdForm)
	case err == unix.EINVAL && w.withdrawn.Load():
		return ctx.Err()
	case err == unix.EAGAIN: // a file system, such as that of a FUSE server, that does not block
		return errors.ErrUnsupported
	}
	return err
}

// A wait is a request that a thread has made of the kernel by F_OFD_SETLKW.
//
// fcntl(2) has no timeout, but a request can be withdrawn. The kernel ends a wait when the
// thread has a signal to handle. After the handler has run, with SA_RESTART, the kernel starts
// the system call again, and reads the request from memory again (seen on Linux 5.10, 6.18 and
// 7.2). By then it is invalid, and the call fails:
//
//	thread                                  withdraw
//	call: read the request, wait
//	                                        make the request invalid
//	                                        send the thread SIGURG
//	stop waiting; run the handler
//	call again: read the request, EINVAL
//
// If the call begins after the request was changed, it does not wait at all. If the kernel
// grants the lock before the signal arrives, the call returns with the lock.
//
// A request to unlock would return as well, but would drop a lock that was held before, by
// another process with the same open file description.
type wait struct {
	flock     unix.Flock_t
	thread    int
	withdrawn atomic.Bool
}

// block makes the request, and blocks until the kernel has granted it or it was withdrawn. It
// leaves the goroutine locked to its thread.
func (w *wait) block(ctx context.Context, fd int) error {
	runtime.LockOSThread()
	w.thread = unix.Gettid()
	blocked, err := unblockSIGURG()
	if err != nil {
		return errors.ErrUnsupported
	}
	typ := w.flock.Type
	stop := context.AfterFunc(ctx, w.withdraw)
	err = ignoringEINTR(fd, unix.F_OFD_SETLKW, typ, &w.flock)
	stop()
	if blocked {
		blockSIGURG()
	}
	return err
}

var invalid = unix.Flock_t{Type: unix.F_UNLCK, Whence: -1}

// withdraw is called at most once, by a goroutine that is not the one that waits. A SIGURG does
// no harm at any time: the runtime itself sends it to its threads, to preempt goroutines.
func (w *wait) withdraw() {
	w.withdrawn.Store(true)
	// The first word holds l_type and l_whence, in an order that depends on the machine.
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&w.flock)), *(*uint32)(unsafe.Pointer(&invalid)))
	_ = unix.Tgkill(pid, w.thread, unix.SIGURG)
}
