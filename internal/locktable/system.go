package locktable

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// Mode is how a lock is held. Modes can be combined to a set.
type Mode uint8

const (
	Shared    Mode = 1 << iota // together with other shared holders
	Exclusive                  // by one holder
)

func (m Mode) String() string {
	if m == Shared {
		return "shared"
	}
	return "exclusive"
}

// ID identifies a file, under whatever path it is opened: by device and inode number, or by
// volume serial number and file index.
type ID struct{ Volume, File uint64 }

// A System opens lock files and tells them apart. Its methods may be called by any number of
// goroutines.
type System interface {
	// Identify returns the identity of the regular file that path names. Its error wraps
	// fs.ErrNotExist if there is no such file.
	Identify(path string) (ID, error)

	// SameFile reports whether path names the file id now. It returns an error if it cannot tell.
	SameFile(path string, id ID) (bool, error)

	// Open opens the regular file that path names, so that it can be locked in mode. It creates
	// nothing and does not block. It may return ErrBusy, or an error that wraps ErrRetry.
	Open(path string, mode Mode) (File, ID, error)

	// Create is like Open, but first creates the file and its parent directories if they do not
	// exist.
	Create(path string, mode Mode, perm fs.FileMode) (File, ID, error)

	// Watch returns a channel that receives when another process has released the lock, so that
	// it may now be possible to lock the file in mode. The channel is nil if the system does
	// not report releases. The caller must call stop, and tell whether it has locked the file.
	Watch(id ID, mode Mode) (released <-chan struct{}, stop func(locked bool))

	// Holders returns the processes that hold the lock on the file id, and those that wait for
	// it, as far as they are known, this one included. The file f is open, or nil if it cannot
	// be opened. A process of which nothing else is known has no PID.
	Holders(id ID, f File) ([]Holder, error)

	// Sleep is time.Sleep, exact to a fraction of a millisecond where the system can do that.
	Sleep(time.Duration)
}

// A File is an open descriptor of a lock file. Only one goroutine at a time may call its
// methods, with two exceptions: any number of them may call Pending, Holder and Duplicate, and
// one may call LockPending while another is in Wait.
//
// Any method that returns an error may wrap ErrRetry.
type File interface {
	// Permits reports whether the file can be locked in mode through this descriptor. One that
	// is open only for reading permits no exclusive lock.
	Permits(mode Mode) bool

	// TryLock locks the file in mode if no other process prevents it, and reports whether it did.
	TryLock(mode Mode) (bool, error)

	// CanWait reports whether Wait may be supported now.
	CanWait() bool

	// Wait locks the file in mode, blocking until it has done so or ctx is done. In the latter
	// case it returns ctx.Err(), and has locked nothing. If the lock is granted at the moment at
	// which ctx is done, it may return nil, and the file is locked until Unlock is called.
	//
	// It returns an error that wraps errors.ErrUnsupported if the kernel cannot wait in this
	// way, on this system, on this file system, or at the moment. The caller has to poll then.
	Wait(ctx context.Context, mode Mode) error

	// LockPending is called by a writer that waits. If readers of other processes hold the
	// lock, it keeps new readers from acquiring it until Unlock. It does not block, and does
	// nothing if a writer holds the lock: a waiter can be stopped, by Ctrl-Z or a debugger, and
	// would keep all readers waiting after that writer has released the lock.
	LockPending() error

	// Pending reports whether a writer of another process keeps new readers from acquiring the
	// lock.
	Pending() (bool, error)

	// Holder returns a holder of the lock in another process, or false if there is none, or
	// none is known. It takes no longer than TryLock. Any number of goroutines may call it.
	Holder() (Holder, bool)

	// Downgrade converts an exclusive lock to a shared one. There is no moment at which another
	// process can lock the file exclusively. If it fails, the lock is still exclusive.
	Downgrade() error

	// Unlock undoes all that TryLock, Wait and LockPending have done. If they have locked nothing,
	// it does nothing: others may hold the lock through the same open file description.
	Unlock() error

	// Duplicate returns another descriptor of the same open file description, through which
	// another process can hold the lock as well. Its error wraps errors.ErrUnsupported if the
	// lock belongs to this process.
	Duplicate() (*os.File, error)

	// OwnedByProcess reports whether the lock belongs to this process, so that closing any
	// descriptor of the file drops it. That is known only after another method has succeeded, or
	// System.Holders with this file.
	OwnedByProcess() bool

	Close() error
}

var (
	// ErrBusy is returned by Open and Create if another process keeps the file from being
	// opened, for now: it has a lease on the file (fcntl(2)), and has been asked to give that
	// up.
	ErrBusy = errors.New("lock is held by another process")

	// ErrRetry is wrapped by errors after which acquiring has to start over, since the path may
	// now name another file, or none.
	ErrRetry = errors.New("lock file keeps changing")
)

// Why acquiring starts over.
var (
	errCreated  = retry("this process was creating the file")
	errRemoved  = retry("the file was removed")
	errReplaced = retry("the path names another file")
	errSettled  = retry("the lock was being acquired or released")
	errPending  = retry("a writer of another process waits for readers")
	errLease    = retry("another process has a lease on the file")
)

func retry(reason string) error { return fmt.Errorf("%w: %s", ErrRetry, reason) }

// A Request is what a caller wants to lock, and how.
type Request struct {
	Path string
	*Options
}

// Options say how a caller waits for a lock. Requests may share them.
type Options struct {
	// Delay and MaxDelay are the intervals between tries where the kernel does not do the
	// waiting: see schedule.
	Delay, MaxDelay time.Duration

	Perm fs.FileMode // of a file that has to be created; 0 is 0666, less the umask

	// ReaderPreference lets new readers overtake a writer that waits in another process.
	ReaderPreference bool
}
