// Package locktable makes the goroutines of one process share a lock file as processes do.
//
// The kernel's file locks belong to a process or to an open file description, never to a
// goroutine. Therefore the process keeps one entry for each lock file that it uses, by the
// identity of the file and not by its path. An entry has one descriptor, a queue of waiting
// goroutines, and at times a leader: the only goroutine that may open, lock, unlock and close
// the file.
//
// The operating system is behind [System] and [File], so this package is the same on all of them.
//
// To read it, begin with the states of an entry (entry.go), and follow a request downward:
// acquire.go, wait.go if another process holds the lock, release.go. No file calls one that
// stands before it there. Beside them, recheck.go finds what nothing reports, and holders.go
// tells who holds the lock.
package locktable

import (
	"errors"
	"io/fs"
	"sync"
	"time"
)

// A Table has the locks of one process on the files of one System.
type Table struct {
	system System

	// idleTimeout is how long the descriptor of a free lock stays open for the next acquire. It
	// is closed after twice that time at the latest.
	idleTimeout time.Duration

	// These are the constants of those names, except in tests.
	sliceLength, firstRecheck time.Duration

	// mu protects all that follows, and most of each entry. It is never held during a system call.
	mu       sync.Mutex
	entries  map[ID]*entry
	paths    map[string]*entry // by entry.path
	creating turns[string]     // to create the file of a path
	asking   map[ID]*question  // to the system, about who holds the lock on a file
	checking turns[*entry]     // to use the file of an entry, beside its leader or its holders
}

// New returns an empty table. A process must have only one per System: tables do not know of
// each other.
func New(system System, idleTimeout time.Duration) *Table {
	return &Table{
		system:       system,
		idleTimeout:  idleTimeout,
		sliceLength:  sliceLength,
		firstRecheck: firstRecheck,
		entries:      make(map[ID]*entry),
		paths:        make(map[string]*entry),
		creating:     make(turns[string]),
		asking:       make(map[ID]*question),
		checking:     make(turns[*entry]),
	}
}

// entryLocked returns the entry of a file, and makes one if there is none.
func (t *Table) entryLocked(id ID) *entry {
	e := t.entries[id]
	if e == nil {
		e = &entry{table: t, id: id, heldUntil: longAgo, left: longAgo}
		t.entries[id] = e
	}
	return e
}

// setPathLocked notes that path names the file of e now, or, if path is empty, that no path is
// known to.
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
	e.recheck.stopLocked()
}

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
