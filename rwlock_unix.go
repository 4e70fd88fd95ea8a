//go:build unix

package fasteners

import (
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners/internal/fcntl"
)

// Python's fasteners, and who else locks all of the file, locks both parts of it. So do our
// writers. Our readers must get at both, but stay in the first only: a writer that waits for
// them takes the second, the gate, and lets nobody pass. SQLite's PENDING byte is the same.
//
// With a peer that reads and stays at the gate the writer is not preferred, but excluded as it
// should be.
var (
	room = fcntl.Range{Start: 0, Len: 1 << 62}
	gate = fcntl.Range{Start: 1 << 62, Len: 0}
)

// admit is where a reader that has locked the whole file leaves the gate.
func (f *file) admit(ok bool, err error) (bool, error) {
	if !ok || err != nil {
		return false, err
	}
	if err := f.Descriptor.Unlock(gate); err != nil {
		_ = f.Unlock()
		return false, err
	}
	return true, nil
}

// Gate leaves the gate alone while a writer is inside: who waits can be stopped, by Ctrl-Z or a
// debugger, and would then keep everybody out, also when that writer is gone. While readers are
// inside the same can happen; it is the price of not being passed by others for ever.
func (f *file) Gate(block bool) error {
	if block {
		// Who has no way to give up waits in the kernel for the lock, too, and is no
		// better off when it is stopped. A false deadlock (see fcntl.Wait) does no harm.
		_, err := f.Descriptor.Wait(unix.F_WRLCK, gate)
		return err
	}
	inside, _, err := f.Test(unix.F_WRLCK, room)
	if err != nil || inside != unix.F_RDLCK {
		return err
	}
	_, err = f.Descriptor.Try(unix.F_WRLCK, gate)
	return err
}

func (f *file) Gated() (bool, error) {
	typ, _, err := f.Test(unix.F_RDLCK, gate)
	return typ == unix.F_WRLCK, err
}

// Downgrade converts the lock, which POSIX makes one step: F_SETLK "shall ... replace" it.
func (f *file) Downgrade() error {
	ok, err := f.admit(f.Descriptor.Try(unix.F_RDLCK, fcntl.Whole))
	if !ok && err == nil {
		err = unix.EAGAIN // from a kernel that is not POSIX
	}
	if err == nil {
		f.announce()
	}
	return err
}

// announce wakes waiters in other processes without closing the file: readers among them can
// get in. Where closing another descriptor of the file would drop the lock, they have to poll.
func (f *file) announce() {
	if f.Classic() {
		return
	}
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(f.FD), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err == nil {
		_ = unix.Close(fd)
	}
}
