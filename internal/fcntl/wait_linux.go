package fcntl

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

// MaxWaits is how many goroutines of the process can be in Wait at a time. Each takes a thread, of which
// Go allows a program 10,000.
const MaxWaits = 256

var waits atomic.Int32

// Wait locks r and blocks until it has, or until ctx is done. Then it returns ctx.Err(), and whether r is
// locked is not known: the caller has to unlock it.
//
// The error is errors.ErrUnsupported where the kernel cannot wait in such a way that this can be
// canceled. That may be different the next time.
func (d *Descriptor) Wait(ctx context.Context, typ int16, r Range) error {
	if d.ownedByProcess() || !d.isLocal() || signal.Ignored(unix.SIGURG) {
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
// fcntl(2) has no timeout, but the request can be withdrawn. The kernel leaves a wait when the thread has
// a signal to handle. After the handler, with SA_RESTART, it starts the system call again, and that reads
// the request again from memory (seen on Linux 5.10, 6.18 and 7.2). By then it is one to unlock, which
// returns at once:
//
//	thread                                  withdraw
//	call: read the request, wait
//	                                        change the request to F_UNLCK
//	                                        send the thread SIGURG
//	stop waiting; run the handler
//	call again: read the request, unlock
//
// If the call begins only after the request was changed, it does not wait in the first place. If the lock
// is granted before the signal comes, the thread returns with the lock, and withdrawn set.
type wait struct {
	flock     unix.Flock_t
	thread    int
	withdrawn atomic.Bool
}

var unlock = unix.Flock_t{Type: unix.F_UNLCK}

// withdraw is called at most once, by another goroutine than the one that waits. The runtime sends its
// own threads SIGURG to preempt goroutines, and expects it at any time.
func (w *wait) withdraw() {
	w.withdrawn.Store(true)
	// One word holds type and whence, in an order that depends on the machine.
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&w.flock)), *(*uint32)(unsafe.Pointer(&unlock)))
	_ = unix.Tgkill(os.Getpid(), w.thread, unix.SIGURG)
}
