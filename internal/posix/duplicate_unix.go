//go:build unix

package posix

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// FirstFD is the lowest descriptor that a lock file may have. Those below it are the standard
// streams. If a program has closed one of them, open(2) returns its number; but what the program
// or a library prints would be written to the lock file, and code that makes a daemon of the
// process would replace the descriptor by one of /dev/null (dup2(2)), and so drop the lock.
const FirstFD = 3

// The first timer makes the runtime open the descriptors that it waits with, for the rest of
// the program. Here it is set while all standard streams are open, as they are when a program
// starts. It would else be one of a lock, after the program has closed a stream: the runtime
// would get the low number, and the program would not survive that it is replaced.
func init() { time.AfterFunc(time.Hour, func() {}).Stop() }

// OpenAbove calls open until it returns a descriptor that is not below FirstFD.
//
// Where locks belong to the process, a descriptor of a lock file must not be closed: that would
// drop a lock that the process holds on the file through another one. So open must not return a low
// number in the first place: each is taken by /dev/null before. A number that another thread has
// closed in between stays as it is, but what uses the file has its own descriptor.
//
// Elsewhere, a lower descriptor is duplicated and closed, which costs nothing unless there is one.
func OpenAbove(open func() (int, error)) (int, error) {
	var d Descriptor
	if d.OwnedByProcess() {
		takeLowFDs()
	}
	low, err := open()
	if err != nil || low >= FirstFD {
		return low, err
	}
	fd, err := Duplicate(uintptr(low))
	Discard(low)
	return fd, err
}

// Discard closes a descriptor of a lock file, unless locks belong to the process, or it cannot find
// out: then fd stays open for ever, lest a lock be dropped that another goroutine has on the file.
func Discard(fd int) {
	d := New(fd, 0)
	if _, err := d.Conflict(unix.F_WRLCK, Whole); err == nil && !d.OwnedByProcess() {
		_ = unix.Close(fd)
	}
}

var lowFDs sync.Mutex

// takeLowFDs opens something else as each descriptor below FirstFD that is not open, and leaves it
// there: /dev/null, or the root directory where there is no such device.
func takeLowFDs() {
	lowFDs.Lock()
	defer lowFDs.Unlock()
	for fd := range FirstFD {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
			continue
		}
		own, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			own, err = unix.Open("/", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		if err == nil && own >= FirstFD { // another thread was faster
			_ = unix.Close(own)
		}
	}
}
