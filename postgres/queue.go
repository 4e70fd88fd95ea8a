package postgres

import (
	"container/list"
	"context"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/lease"
)

// An entry is a lock that goroutines of this process hold or wait for. These
// wait in a queue, in order of arrival. One goroutine serves the queue: it
// waits for the lock in the queue of the server, on one connection, in the mode
// of the first waiter, and keeps its place there when that gives up and the
// next one wants the same.
//
// When a goroutine releases the lock, the server hands it on: to another
// process if one waits, and otherwise to this one, which has asked for it
// again, for its next waiter. So processes take turns, whatever the number of
// their goroutines.
//
// DB.mu protects an entry. Every name that ends in Locked is of a function
// whose caller holds it.
//
// The table of lock files is not used here. Its descriptors do not end by
// themselves, while a session can be lost with all its holds. It hands a lock
// on without asking anybody, while here each grant needs a token of its own.
// And its goroutines wait in turn, while one that gives up here would cost the
// process its place in the queue of the server.
type entry struct {
	db      *DB
	name    string
	key     int64
	queue   list.List // of *waiter
	patient int       // how many of these are not tries
	serving bool      // a goroutine serves the queue
	grant   *grant    // what the server has granted, or nil if it has not, or it is lost
	trouble error     // why the server could not be asked, or nil

	// stop makes the goroutine that serves the queue give up its wait, which is
	// for a lock in mode asked. It is nil if there is no such wait. While
	// asking, the server has been asked, and has not answered.
	stop   context.CancelFunc
	asked  lease.Mode
	asking bool
}

// A waiter is one goroutine in a queue.
type waiter struct {
	entry   *entry
	element *list.Element // of the queue
	mode    lease.Mode
	try     bool // it waits only until it is known whether the lock is free

	// resolved is closed when the wait is over. Then the waiter has a hold or
	// an error.
	resolved chan struct{}
	hold     *hold
	err      error
}

// acquire acquires a lock for a [lease.Handle].
func (db *DB) acquire(ctx context.Context, name string, m lease.Mode, try bool) (*hold, error) {
	w := db.enter(name, m, try)
	select {
	case <-w.resolved:
	case <-ctx.Done():
	}
	if ctx.Err() == nil {
		return w.hold, w.err
	}
	err := lease.ContextError(ctx)
	held, trouble := w.leave()
	if held {
		return nil, &fasteners.HeldError{Err: err}
	}
	return nil, lease.WithCause(err, trouble)
}

// enter makes a new waiter a holder, refuses it, or puts it into the queue.
func (db *DB) enter(name string, m lease.Mode, try bool) *waiter {
	db.mu.Lock()
	defer db.mu.Unlock()
	w := &waiter{mode: m, try: try, resolved: make(chan struct{})}
	if db.closed {
		w.resolveLocked(nil, ErrClosed)
		return w
	}
	e := db.entries[name]
	if e == nil {
		e = &entry{db: db, name: name, key: Key(name)}
	}
	w.entry = e
	g := e.grantLocked()
	db.entries[name] = e // after that: a lost grant that nobody waits for has taken e out
	joins := m == lease.Shared && g != nil && g.mode == lease.Shared && g.lastsLocked()
	switch {
	case joins && e.queue.Len() == 0 && lease.Now() < g.joinUntil:
		w.resolveLocked(g, nil)
		return w
	case try && (e.patient > 0 || g != nil && !joins):
		w.resolveLocked(nil, lease.ErrBusy)
		return w
	}
	w.element = e.queue.PushBack(w)
	if !try {
		e.patient++
	}
	switch {
	case !e.serving:
		e.serveLocked()
	case joins:
		g.interruptLocked() // it admits readers
	}
	return w
}

// grantLocked returns the grant of those that hold the lock, or nil if nobody
// does, or it is lost.
func (e *entry) grantLocked() *grant {
	if g := e.grant; g != nil && g.lease.Err() != nil {
		g.handOverLocked()
	}
	return e.grant
}

func (e *entry) serveLocked() {
	e.serving = true
	e.db.running.Go(e.serve)
}

// headLocked returns the first waiter, or nil if there is none.
func (e *entry) headLocked() *waiter {
	if first := e.queue.Front(); first != nil {
		return first.Value.(*waiter)
	}
	return nil
}

func (e *entry) removeLocked(w *waiter) {
	e.queue.Remove(w.element)
	if !w.try {
		e.patient--
	}
}

// resolveLocked ends the wait of w, which is not in the queue, with a grant or
// an error.
func (w *waiter) resolveLocked(g *grant, err error) {
	w.err = err
	if err == nil {
		w.hold = &hold{Hold: lease.Hold{Lease: g.lease, Token: g.token}, grant: g}
		g.holders++
	}
	close(w.resolved)
}

// leave ends the wait of w for a goroutine that gives up. What it was granted
// at the last moment it gives back. It reports whether somebody else has held
// the lock, as far as is known, and otherwise why the server could not be
// asked, or nil.
func (w *waiter) leave() (held bool, trouble error) {
	e := w.entry
	e.db.mu.Lock()
	defer e.db.mu.Unlock()
	select {
	case <-w.resolved:
		if w.err == nil {
			go w.hold.Release()
		}
		return false, nil
	default:
	}
	g := e.grantLocked()
	held, trouble = e.asking || g != nil, e.trouble
	e.removeLocked(w)
	if head := e.headLocked(); e.stop != nil && (head == nil || head.mode != e.asked) {
		e.stop()
	}
	if g != nil {
		g.interruptLocked() // it admits readers that have waited for w, a writer
	}
	return held, trouble
}

// admitLocked makes the first waiter a holder, and if it is a reader, all those
// behind it up to the next writer.
func (e *entry) admitLocked(g *grant) {
	for w := e.headLocked(); w != nil && w.mode == g.mode; w = e.headLocked() {
		e.removeLocked(w)
		w.resolveLocked(g, nil)
		if g.mode == lease.Exclusive {
			break
		}
	}
}

// failTriesLocked ends the waits of all tries.
func (e *entry) failTriesLocked(err error) {
	for el := e.queue.Front(); el != nil && e.patient < e.queue.Len(); {
		w := el.Value.(*waiter)
		el = el.Next()
		if w.try {
			e.removeLocked(w)
			w.resolveLocked(nil, err)
		}
	}
}

// failLocked ends all waits.
func (e *entry) failLocked(err error) {
	for w := e.headLocked(); w != nil; w = e.headLocked() {
		e.removeLocked(w)
		w.resolveLocked(nil, err)
	}
	if e.stop != nil {
		e.stop()
	}
}
