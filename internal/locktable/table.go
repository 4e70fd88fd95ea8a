// Package locktable makes the goroutines of one process share a lock file as processes do.
//
// The kernel's file locks belong to a process or to an open file description, never to a goroutine.
// Therefore the process keeps one entry for each lock file that it uses, by the identity of the file and
// not by its path. An entry has one descriptor, a queue of waiting goroutines, and at times a leader: the
// only goroutine that may open, lock, unlock and close the file.
//
// The operating system is behind [System] and [File], so this package is the same on all of them.
package locktable

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"sync"
	"time"
)

// A Table has the locks of one process on the files of one System.
type Table struct {
	system System

	// idleTimeout is how long the descriptor of a free lock stays open for the next acquire. It is closed
	// after twice that time at the latest.
	idleTimeout time.Duration

	// These are the constants of those names, except in tests.
	minSlice, maxSlice, firstRecheck, freshHolder time.Duration

	// mu protects all that follows, and most of each entry. It is never held during a system call.
	mu       sync.Mutex
	entries  map[ID]*entry
	paths    map[string]*entry        // by entry.path
	creating map[string]chan struct{} // closed when the attempt to create that path is over
	asking   map[ID]chan struct{}     // closed when a goroutine has asked about that file
}

// New returns an empty table. A process must have only one per System: tables do not know of each other.
func New(system System, idleTimeout time.Duration) *Table {
	return &Table{
		system:       system,
		idleTimeout:  idleTimeout,
		minSlice:     minSlice,
		maxSlice:     maxSlice,
		firstRecheck: firstRecheck,
		freshHolder:  freshHolder,
		entries:      make(map[ID]*entry),
		paths:        make(map[string]*entry),
		creating:     make(map[string]chan struct{}),
		asking:       make(map[ID]chan struct{}),
	}
}

// A Hold is one grant of a lock. The holder calls Release once.
type Hold struct{ entry *entry }

// Release releases the lock. It reports whether path still named the locked file.
func (h Hold) Release(path string) (same bool, err error) {
	// This comes before the release: anybody may replace the file of a free lock. If the system cannot
	// tell, that is not reported, and the lock is released all the same.
	same, lookErr := h.entry.table.system.SameFile(path, h.entry.id)
	if !same {
		return lookErr != nil, h.entry.release("")
	}
	return true, h.entry.release(path)
}

// ID returns the identity of the locked file.
func (h Hold) ID() ID { return h.entry.id }

// SameFile reports whether path names the locked file, or the system cannot tell.
func (h Hold) SameFile(path string) bool {
	same, err := h.entry.table.system.SameFile(path, h.entry.id)
	return same || err != nil
}

// Duplicate returns a descriptor for another process to hold the lock as well: see [File].
func (h Hold) Duplicate() (*os.File, error) { return h.entry.file.Duplicate() }

// Downgrade converts an exclusive hold to a shared one. The readers at the head of the queue acquire the
// lock, too.
func (h Hold) Downgrade() error { return h.entry.downgrade() }

// create creates the file of r, or waits until another goroutine has tried to: otherwise each of a
// thousand goroutines that find the file missing would open it. The caller has to start over.
func (t *Table) create(ctx context.Context, r *Request, mode Mode) error {
	t.mu.Lock()
	if done := t.creating[r.Path]; done != nil {
		t.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
		}
		return errBeingMade // a caller that starts over checks ctx, too
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
	switch err {
	case nil:
		return errCreated
	case ErrBusy:
		return errLease
	}
	return err
}

// adopt gives an open descriptor to the entry of its file. The goroutine that opened it must not close
// it: where locks belong to the process, that would drop the lock that another goroutine may have acquired
// on the file meanwhile.
func (t *Table) adopt(f File, id ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entryLocked(id)
	switch {
	case e.state == idle && e.file == nil:
		e.file, e.releasedAt = f, time.Now() // it stays open as if the lock had just been released
	case e.spare == nil:
		e.spare = f
	default:
		e.pendingClose = append(e.pendingClose, f)
	}
	if e.state == idle {
		e.closeLaterLocked()
	}
}

// entryLocked returns the entry of a file, and makes one if there is none.
func (t *Table) entryLocked(id ID) *entry {
	e := t.entries[id]
	if e == nil {
		e = &entry{table: t, id: id, slice: t.minSlice, idleYields: maxIdleYields}
		t.entries[id] = e
	}
	return e
}

// setPathLocked notes that path names the file of e now, or, if path is empty, that no path is known to.
func (t *Table) setPathLocked(e *entry, path string) {
	if path == e.path {
		return
	}
	delete(t.paths, e.path)
	e.path = path
	if path == "" {
		return
	}
	if other := t.paths[path]; other != nil {
		other.path = ""
	}
	t.paths[path] = e
}

// removeLocked removes an entry that has no descriptor open.
func (t *Table) removeLocked(e *entry) {
	t.setPathLocked(e, "")
	delete(t.entries, e.id)
	if e.recheck.timer != nil {
		e.recheck.timer.Stop()
	}
}

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
