// Package table makes the goroutines of one process share a lock file as
// processes do.
//
// The kernel's file locks belong to a process or to an open file description,
// never to a goroutine. So the process keeps one entry per lock file, keyed by
// the identity of the file and not by its name, and each entry has one
// descriptor, a queue of goroutines, and a token:
//
//   - Whoever has the token is the only one to talk to the kernel about the
//     file: to open it, lock it, wait for it, unlock it and close it. Nobody
//     has it while the lock is held; the last holder to release takes it.
//   - A goroutine that finds the token free leads: it locks the file for
//     itself and for the readers that came right behind it. All others queue,
//     first in, first out, and the token passes down the queue.
//
// The rest of the system is behind [System] and [File], so that the whole of
// the package is the same everywhere.
package table

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"time"
)

// Mode is what a lock lets others do. Modes can be added up to a set.
type Mode uint8

const (
	Shared    Mode = 1 << iota // with other shared holders
	Exclusive                  // with nobody else
)

// ID identifies a file, whatever names it has: device and inode, or volume
// serial number and file index.
type ID struct{ Volume, File uint64 }

// A System opens and tells apart lock files.
type System interface {
	// Identify returns the identity of the regular file that path names. It
	// returns an error that is fs.ErrNotExist where nothing has that name.
	Identify(path string) (ID, error)

	// Names reports whether path names the file id now. The error is for
	// when it cannot be told.
	Names(path string, id ID) (bool, error)

	// Open opens the regular file that path names, so that it can be locked
	// in mode. It creates nothing, and never blocks: see ErrAgain.
	Open(path string, mode Mode) (File, ID, error)

	// Create is Open, but first makes the file, and the directories above
	// it, where they are missing.
	Create(path string, mode Mode, perm fs.FileMode) (File, ID, error)

	// Claim is for one who has been passed while he waited for the lock on the file. It asks
	// other processes to let him go first, until drop is called.
	Claim(ID) (drop func())

	// Claimed reports whether another process has such a claim.
	Claimed(ID) bool

	// Sleep is time.Sleep, exact to a fraction of a millisecond where that can be had.
	Sleep(time.Duration)
}

// A File is one open descriptor of a lock file. Gated may be used by several
// goroutines at a time, all else by one.
type File interface {
	// Permits reports whether the descriptor can be locked in mode: some can
	// be opened for reading only, and such cannot be locked exclusively.
	Permits(mode Mode) bool

	// Try locks the file if that can be done at once.
	Try(mode Mode) (bool, error)

	// Wait locks the file and blocks until it has. False means that this
	// system or this moment has no such call.
	Wait(mode Mode) (bool, error)

	// Gate is for a writer that has to wait. If only readers are inside, no
	// new ones get in from now on, until Unlock. If a writer is inside it does
	// nothing, or blocks until it can do its work where block says so.
	Gate(block bool) error

	// Gated reports whether another process has the gate.
	Gated() (bool, error)

	// Quiet reports whether one who keeps mode out may let go of the lock and keep the file
	// open, as nobody does who uses this module.
	Quiet(mode Mode) bool

	// Downgrade makes an exclusive lock a shared one. There is no instant at
	// which another process could lock the file exclusively.
	Downgrade() error

	// Unlock lets go of all that has been locked, and of the gate.
	Unlock() error

	// Close closes the descriptor, which tells the watchers in other
	// processes that a try is worth it.
	Close() error

	// Watch begins to look for events that make a try worth it.
	Watch() Watch
}

// A Watch is for one goroutine, until that stops it.
type Watch interface {
	// Wait returns true after an event, also one since the last call, and false
	// after d or when ctx is done. It may be wrong, or return early.
	Wait(ctx context.Context, d time.Duration) bool

	// Moved reports whether an event since the last call may mean that the file has another
	// name now, or none.
	Moved() bool

	// Complete reports whether all who close the file make an event.
	Complete() bool

	Stop()
}

// A Request is what a caller wants to lock, and how.
type Request struct {
	Path string
	*Options
}

// Options are how callers want to wait for a lock. Requests may share them.
type Options struct {
	// Delay and MaxDelay are the times between tries where no event comes:
	// the n-th wait is n×Delay, but at most MaxDelay.
	Delay, MaxDelay time.Duration

	Perm fs.FileMode // of a file that has to be created, before umask

	// ReaderPreference lets new readers pass a writer that waits in another
	// process.
	ReaderPreference bool
}

// A Hold is one grant of a lock. It is given back once, by Release.
type Hold struct{ entry *entry }

// A Table has the locks of one process on the files of one System.
type Table struct {
	system System

	// linger is for how long after it was opened the descriptor of a free
	// lock may be kept for the next acquire.
	linger time.Duration

	// These are the constants, but for tests.
	minTurn, maxTurn, grace time.Duration

	// mu protects all that follows, and in each entry what is said there. It
	// is never held during a system call.
	mu       sync.Mutex
	entries  map[ID]*entry
	names    map[string]*entry        // by entry.name
	creating map[string]chan struct{} // closed when the attempt is over
}

// New returns an empty table. A process must have one per System: two know
// nothing of each other.
func New(system System, linger time.Duration) *Table {
	return &Table{
		system:   system,
		linger:   linger,
		minTurn:  minTurn,
		maxTurn:  maxTurn,
		grace:    grace,
		entries:  make(map[ID]*entry),
		names:    make(map[string]*entry),
		creating: make(map[string]chan struct{}),
	}
}

// ErrAgain is the error of Open and Create when it is up to others that this fails now: who has a
// lease on the file has been asked to give it up, or a directory is removed whenever it was made.
var ErrAgain = errors.New("try again")

// These never leave the package.
var (
	errBusy  = errors.New("busy")                    // a try found the lock held
	errStale = errors.New("path names another file") // start over
)

// Acquire locks the file that r.Path names. When it returns without an error,
// the path named the locked file at an instant at which it was locked. When
// ctx is done first, it returns ctx.Err() and leaves nothing behind.
func (t *Table) Acquire(ctx context.Context, r *Request, mode Mode) (Hold, error) {
	return t.acquire(ctx, r, mode, false)
}

// Try is Acquire for who does not want to wait. It reports false if the lock
// is held, or somebody waits for it and would be passed.
func (t *Table) Try(r *Request, mode Mode) (Hold, bool, error) {
	h, err := t.acquire(context.Background(), r, mode, true)
	if err == errBusy {
		return Hold{}, false, nil
	}
	return h, err == nil, err
}

func (t *Table) acquire(ctx context.Context, r *Request, mode Mode, try bool) (Hold, error) {
	for first := true; ; first = false {
		if err := ctx.Err(); err != nil {
			return Hold{}, err
		}
		e, looked, err := t.find(ctx, r, mode, first)
		if e != nil {
			var w *waiter
			w, err = e.enter(ctx, r, mode, try, looked)
			if w != nil {
				w.wait(ctx) // here, and not further down: see there
				err = e.served(ctx, w)
			}
		}
		switch err {
		case nil:
			return Hold{e}, nil
		case errStale:
		default:
			return Hold{}, err
		}
	}
}

// find returns the entry of the file that r.Path names, with t.mu held, and reports whether it has
// looked. It can do without where the file is open, as it is seldom replaced: what a path named a
// moment ago it still names, and confirm looks after the fact. That is worth no wait: behind a file
// that the path does not name any more we could wait for ever.
func (t *Table) find(ctx context.Context, r *Request, mode Mode, first bool) (e *entry, looked bool, err error) {
	if first {
		t.mu.Lock()
		if e := t.names[r.Path]; e != nil {
			return e, false, nil
		}
		t.mu.Unlock()
	}
	id, err := t.system.Identify(r.Path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = t.create(ctx, r, mode)
		}
		return nil, true, err
	}
	t.mu.Lock()
	return t.entry(id), true, nil
}

// create makes the file of r, or waits for the goroutine that is about it: else each of a
// thousand goroutines that find it missing would open it. Then it returns errStale.
func (t *Table) create(ctx context.Context, r *Request, mode Mode) error {
	t.mu.Lock()
	if done := t.creating[r.Path]; done != nil {
		t.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
		}
		return errStale // who starts over looks at ctx too
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
	if err == nil || err == ErrAgain {
		err = errStale
	}
	return err
}

// adopt gives an open descriptor to the entry of its file. It is not for the
// one who opened it to close: that would drop the lock that another goroutine
// may have got on the file, where locks belong to the process.
func (t *Table) adopt(f File, id ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entry(id)
	if e.idle() && e.file == nil {
		e.file, e.opened = f, time.Now()
	} else {
		e.strays = append(e.strays, f)
	}
	if e.idle() {
		e.expireLater()
	}
}

// entry returns the entry for a file, a new one if need be. t.mu is held.
func (t *Table) entry(id ID) *entry {
	e := t.entries[id]
	if e == nil {
		e = &entry{table: t, id: id, turn: t.minTurn, missed: alone}
		t.entries[id] = e
	}
	return e
}

// name notes that path names the file of e now, or, if it is empty, that no name is known. t.mu is
// held.
func (t *Table) name(e *entry, path string) {
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

// remove takes an entry out that has nothing open. t.mu is held.
func (t *Table) remove(e *entry) {
	t.name(e, "")
	delete(t.entries, e.id)
}

// Release gives the lock back. It reports whether path still named the locked
// file.
func (h Hold) Release(path string) (named bool, err error) {
	// Look first: when the lock is free, anybody may replace the file. What
	// cannot be told is not reported, the lock is released all the same.
	named, lookErr := h.entry.table.system.Names(path, h.entry.id)
	if !named {
		return lookErr != nil, h.entry.release("")
	}
	return true, h.entry.release(path)
}

// Named reports whether path names the locked file, as far as that can be told.
func (h Hold) Named(path string) bool {
	named, err := h.entry.table.system.Names(path, h.entry.id)
	return named || err != nil
}

// Downgrade makes an exclusive hold a shared one. Waiting readers get in too.
func (h Hold) Downgrade() error { return h.entry.downgrade() }

func (m Mode) String() string {
	if m == Shared {
		return "shared"
	}
	return "exclusive"
}
