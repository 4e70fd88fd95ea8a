// Package table makes the goroutines of one process share a lock file as processes do.
//
// The kernel's file locks belong to a process or to an open file description, never to a goroutine. So
// the process keeps one entry per lock file, by the identity of the file and not by its name. Each entry
// has one descriptor, a queue of goroutines, and a leader at times: the only goroutine that may open,
// lock, unlock and close the file.
//
// The operating system is behind [System] and [File], so that this package is the same everywhere.
package table

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"sync"
	"time"
)

// Mode is how a lock is held. Modes can be added up to a set.
type Mode uint8

const (
	Shared    Mode = 1 << iota // together with other shared holders
	Exclusive                  // alone
)

func (m Mode) String() string {
	if m == Shared {
		return "shared"
	}
	return "exclusive"
}

// ID identifies a file, whatever names it has: device and inode, or volume serial number and file index.
type ID struct{ Volume, File uint64 }

// A System opens lock files and tells them apart. Its methods may be called by any number of goroutines.
type System interface {
	// Identify returns the identity of the regular file that path names. Its error is fs.ErrNotExist if
	// there is no such file.
	Identify(path string) (ID, error)

	// SameFile reports whether path names the file id now. The error is for when that is unknown.
	SameFile(path string, id ID) (bool, error)

	// Open opens the regular file that path names, such that it can be locked in mode. It neither creates
	// anything nor blocks. Its error may be ErrBusy or ErrRetry.
	Open(path string, mode Mode) (File, ID, error)

	// Create is like Open, but first creates the file, and the directories above it, if they are missing.
	Create(path string, mode Mode, perm fs.FileMode) (File, ID, error)

	// Watch returns a channel that receives when another process has released the lock, so that trying to
	// lock the file in mode may succeed now; or nil if the system does not tell. The caller must call
	// stop, and say whether it has locked the file.
	Watch(id ID, mode Mode) (released <-chan struct{}, stop func(locked bool))

	// Sleep is time.Sleep, to a fraction of a millisecond where the system can do that.
	Sleep(time.Duration)
}

// A File is one open descriptor of a lock file. Its methods are called by one goroutine at a time, with
// two exceptions: Pending by any number of them, and LockPending while another is in Wait.
type File interface {
	// Permits reports whether the file can be locked in mode with this descriptor: with one that is open
	// for reading alone it cannot be locked exclusively.
	Permits(mode Mode) bool

	// TryLock locks the file in mode if no other process prevents it, and reports whether it has.
	TryLock(mode Mode) (bool, error)

	// Wait locks the file in mode, and blocks until it has or until ctx is done. Then it returns
	// ctx.Err(), and whether the file is locked is not known before Unlock.
	//
	// Its error is errors.ErrUnsupported where this system, or this file system, or the system at this
	// moment cannot block so: then the caller has to try again from time to time.
	Wait(ctx context.Context, mode Mode) error

	// LockPending is for a writer that waits. While readers of other processes hold the lock, it makes
	// new ones wait, until Unlock. It does not block, and does nothing if a writer holds the lock: a
	// waiter that is stopped, by Ctrl-Z or a debugger, would otherwise keep everybody out when that
	// writer is gone.
	LockPending() error

	// Pending reports whether a writer of another process makes new readers wait.
	Pending() (bool, error)

	// Downgrade makes an exclusive lock a shared one. At no instant can another process lock the file
	// exclusively. After an error the lock is still exclusive.
	Downgrade() error

	// Unlock undoes whatever TryLock, Wait and LockPending have done.
	Unlock() error

	Close() error
}

var (
	// ErrBusy is an error of Open and Create: another process keeps the file from being opened for now,
	// but has been asked to let go, as one that has a lease on it (fcntl(2)).
	ErrBusy = errors.New("lock is held by another process")

	// ErrRetry is an error of Open, Create and the methods of File: the path may have come to name
	// another file, or none, so that acquiring has to start over.
	ErrRetry = errors.New("path names another file each time")
)

var errRetryAfterWait = fmt.Errorf("%w", ErrRetry)

// maxRetries is how often an acquire starts over in a row, without having waited in between.
const maxRetries = 1000

// A Request is what a caller wants to lock, and how.
type Request struct {
	Path string
	*Options
}

// Options are how callers want to wait for a lock. Requests may share them.
type Options struct {
	// Delay and MaxDelay are the times between tries where the system does not do the waiting: see
	// schedule.
	Delay, MaxDelay time.Duration

	Perm fs.FileMode // of a file that has to be created, before umask

	// ReaderPreference lets new readers pass a writer that waits in another process.
	ReaderPreference bool
}

// A Table has the locks of one process on the files of one System.
type Table struct {
	system System

	// idleTimeout is how long the descriptor of a lock that nobody holds stays open for the next acquire,
	// and up to twice as long.
	idleTimeout time.Duration

	// These are the constants of those names, but for tests.
	minSlice, maxSlice, firstRecheck time.Duration

	// mu protects all that follows, and what each entry says. It is never held during a system call.
	mu       sync.Mutex
	entries  map[ID]*entry
	names    map[string]*entry        // by entry.name
	creating map[string]chan struct{} // closed when the attempt is over
}

// New returns an empty table. A process must have one per System: two know nothing of each other.
func New(system System, idleTimeout time.Duration) *Table {
	return &Table{
		system:       system,
		idleTimeout:  idleTimeout,
		minSlice:     minSlice,
		maxSlice:     maxSlice,
		firstRecheck: firstRecheck,
		entries:      make(map[ID]*entry),
		names:        make(map[string]*entry),
		creating:     make(map[string]chan struct{}),
	}
}

// A Hold is one grant of a lock. It is given back once, by Release.
type Hold struct{ entry *entry }

// Acquire locks the file that r.Path names. When it returns no error, the path named the locked file at
// an instant at which it was locked. When ctx is done first, it returns ctx.Err() and leaves nothing
// behind.
func (t *Table) Acquire(ctx context.Context, r *Request, mode Mode) (Hold, error) {
	return t.acquire(ctx, r, mode, false)
}

// TryAcquire is like Acquire, but does not wait. It reports false if the lock is held, or if a goroutine
// of this process that came before waits for it.
func (t *Table) TryAcquire(r *Request, mode Mode) (Hold, bool, error) {
	h, err := t.acquire(context.Background(), r, mode, true)
	if err == ErrBusy {
		return Hold{}, false, nil
	}
	return h, err == nil, err
}

func (t *Table) acquire(ctx context.Context, r *Request, mode Mode, try bool) (Hold, error) {
	for retries := 0; ; retries++ {
		if err := ctx.Err(); err != nil {
			return Hold{}, err
		}
		e, w, err := t.attempt(ctx, r, mode, try, retries == 0)
		if w != nil {
			w.wait(ctx) // here, where the stack is small: see there
			err = e.finish(ctx, w)
			retries = 0
		}
		if err == nil {
			return Hold{e}, nil
		}
		if !errors.Is(err, ErrRetry) {
			return Hold{}, err
		}
		if err == errRetryAfterWait {
			retries = 0
		}
		if retries == maxRetries {
			return Hold{}, err
		}
		if retries > maxRetries/10 {
			time.Sleep(rand.N(200 * time.Microsecond)) // not in step with whoever changes the path
		}
	}
}

// attempt acquires the lock, or queues the caller and returns a waiter, for finish. A caller that may
// guess takes the path to name the file that it named when this process released it last.
func (t *Table) attempt(ctx context.Context, r *Request, mode Mode, try, guess bool) (*entry, *waiter, error) {
	var e *entry
	if guess {
		t.mu.Lock()
		if e = t.names[r.Path]; e == nil {
			t.mu.Unlock()
		}
	}
	if e == nil {
		guess = false
		id, err := t.system.Identify(r.Path)
		if isNotExist(err) {
			err = t.create(ctx, r, mode)
		}
		if err != nil {
			return nil, nil, err
		}
		t.mu.Lock()
		e = t.entryLocked(id)
	}
	o, w := e.enterLocked(r, mode, try, guess)
	t.mu.Unlock()
	err := ErrRetry
	switch o {
	case queued:
		err = nil
	case leading:
		err = e.lead(ctx, r, mode, try)
	case granted:
		err = e.verify(r)
	case joining:
		w, err = e.join(r, try, guess)
	case refused:
		err = ErrBusy
	}
	return e, w, err
}

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// create creates the file of r, or waits for the goroutine that does: otherwise each of a thousand
// goroutines that find it missing would open it. Then it returns ErrRetry.
func (t *Table) create(ctx context.Context, r *Request, mode Mode) error {
	t.mu.Lock()
	if done := t.creating[r.Path]; done != nil {
		t.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
		}
		return ErrRetry // a caller that starts over looks at ctx, too
	}
	done := make(chan struct{})
	t.creating[r.Path] = done
	t.mu.Unlock()

	f, id, err := t.system.Create(r.Path, mode, r.Perm)
	if err == nil {
		t.adopt(f, id)
	}

	t.mu.Lock()
	delete(t.creating, r.Path)
	t.mu.Unlock()
	close(done)
	if err == nil || err == ErrBusy {
		return ErrRetry
	}
	return err
}

// adopt gives an open descriptor to the entry of its file. The goroutine that opened it must not close
// it: where locks belong to the process, that would drop the lock that another goroutine may have got on
// the file meanwhile.
func (t *Table) adopt(f File, id ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entryLocked(id)
	if e.state == idle && e.file == nil {
		e.file, e.releasedAt = f, time.Now() // it stays open as if it had been locked
	} else {
		e.pendingClose = append(e.pendingClose, f)
	}
	if e.state == idle {
		e.closeLaterLocked()
	}
}

// entryLocked returns the entry of a file, a new one if there is none. The caller holds t.mu.
func (t *Table) entryLocked(id ID) *entry {
	e := t.entries[id]
	if e == nil {
		e = &entry{table: t, id: id, slice: t.minSlice, idleYields: maxIdleYields}
		t.entries[id] = e
	}
	return e
}

// nameLocked notes that path names the file of e now, or, if path is empty, that no name is known. The
// caller holds t.mu.
func (t *Table) nameLocked(e *entry, path string) {
	if path == e.name {
		return
	}
	delete(t.names, e.name)
	e.name = path
	if path == "" {
		return
	}
	if other := t.names[path]; other != nil {
		other.name = ""
	}
	t.names[path] = e
}

// removeLocked takes an entry out that has nothing open. The caller holds t.mu.
func (t *Table) removeLocked(e *entry) {
	t.nameLocked(e, "")
	delete(t.entries, e.id)
	if e.recheck.timer != nil {
		e.recheck.timer.Stop()
	}
}

// Release gives the lock back. It reports whether path still named the locked file.
func (h Hold) Release(path string) (named bool, err error) {
	// Look before: when the lock is free, anybody may replace the file. What is not known is not
	// reported, and the lock is released all the same.
	named, lookErr := h.entry.table.system.SameFile(path, h.entry.id)
	if !named {
		return lookErr != nil, h.entry.release("")
	}
	return true, h.entry.release(path)
}

// Named reports whether path names the locked file, as far as that is known.
func (h Hold) Named(path string) bool {
	named, err := h.entry.table.system.SameFile(path, h.entry.id)
	return named || err != nil
}

// Downgrade makes an exclusive hold a shared one. Waiting readers get in, too.
func (h Hold) Downgrade() error { return h.entry.downgrade() }
