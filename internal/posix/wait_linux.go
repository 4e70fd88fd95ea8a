package posix

import (
	"context"
	"errors"
	"os"
	"os/signal"
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

// MaxWaits is how many goroutines of the process can be in Wait at a time. Each of them takes a
// thread, and Go allows a program 10,000 of these.
const MaxWaits = 256

var waits atomic.Int32

// CanWait reports whether Wait is supported, unless too many goroutines are in Wait already.
func (d *Descriptor) CanWait() bool {
	return !d.OwnedByProcess() && d.IsLocal() && !signal.Ignored(unix.SIGURG)
}

// Wait locks r, blocking until it has done so or ctx is done. In the latter case it returns
// ctx.Err(), and r may be locked or not: the caller has to unlock it.
//
// It returns errors.ErrUnsupported if the kernel cannot wait, or could not be made to end the
// wait. The next call may succeed.
func (d *Descriptor) Wait(ctx context.Context, typ int16, r Range) error {
	if !d.CanWait() {
		return errors.ErrUnsupported
	}
	defer waits.Add(-1)
	if waits.Add(1) > MaxWaits {
		return errors.ErrUnsupported
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	w := &wait{flock: newFlock(typ, r), thread: unix.Gettid()}
	stop := context.AfterFunc(ctx, w.withdraw)
	err := ignoringEINTR(d.FD, unix.F_OFD_SETLKW, &w.flock)
	stop()
	if err == nil && w.withdrawn.Load() {
		return ctx.Err()
	}
	return err
}

// A wait is a request that a thread has made of the kernel by F_OFD_SETLKW.
//
// fcntl(2) has no timeout, but a request can be withdrawn. The kernel ends a wait when the
// thread has a signal to handle. After the handler has run, with SA_RESTART, the kernel starts
// the system call again, and reads the request from memory again (seen on Linux 5.10, 6.18 and
// 7.2). By then it is a request to unlock, which returns immediately:
//
//	thread                                  withdraw
//	call: read the request, wait
//	                                        change the request to F_UNLCK
//	                                        send the thread SIGURG
//	stop waiting; run the handler
//	call again: read the request, unlock
//
// If the call begins after the request was changed, it does not wait at all. If the kernel
// grants the lock before the signal arrives, the call returns with the lock, and withdrawn is
// set.
type wait struct {
	flock     unix.Flock_t
	thread    int
	withdrawn atomic.Bool
}

var unlock = unix.Flock_t{Type: unix.F_UNLCK}

// withdraw is called at most once, by a goroutine that is not the one that waits. A SIGURG does
// no harm at any time: the runtime itself sends it to its threads, to preempt goroutines.
func (w *wait) withdraw() {
	w.withdrawn.Store(true)
	// The first word holds l_type and l_whence, in an order that depends on the machine.
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&w.flock)), *(*uint32)(unsafe.Pointer(&unlock)))
	_ = unix.Tgkill(os.Getpid(), w.thread, unix.SIGURG)
}
