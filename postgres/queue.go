package postgres

import (
	"container/list"
	"context"
)

// An entry is a lock that goroutines of this process hold or wait for. These wait in a queue, in order of
// arrival. One goroutine serves the queue: it waits for the lock in the queue of the server, on one
// connection, in the mode of the first waiter, and keeps its place there when that gives up and the next one
// wants the same.
//
// When a goroutine releases the lock, the server hands it on: to another process if one waits, and
// otherwise to this one, which has asked for it again, for its next waiter. So processes take turns,
// whatever the number of their goroutines.
//
// DB.mu protects an entry. Every name that ends in Locked is of a function whose caller holds it.
//
// The table of lock files (internal/table) is not used here. Its descriptors do not end by themselves,
// while a session can be lost with all its holds. It hands a lock on without asking anybody, while here
// each grant needs a token of its own. And its goroutines wait in turn, while one that gives up here
// would cost the process its place in the queue of the server.
type entry struct {
	db      *DB
	name    string
	key     int64
	queue   list.List // of *waiter
	patient int       // how many of these are not tries
	serving bool      // a goroutine serves the queue
	grant   *grant    // what the server has granted, or nil if it has not, or it is lost
	trouble error     // why the server could not be asked, or nil

	// stop makes the goroutine that serves the queue give up its wait, which is for a lock in mode asked. It
	// is nil if there is no such wait. While asking, the server has been asked, and has not answered.
	stop   context.CancelFunc
	asked  mode
	asking bool
}

// A waiter is one goroutine in a queue.
type waiter struct {
	entry   *entry
	element *list.Element // of the queue
	mode    mode
	try     bool  // it waits only until it is known whether the lock is free
	hold    *hold // to be granted

	// resolved is closed when the wait is over. Then err is set, or the hold has its grant.
	resolved chan struct{}
	err      error
}

// enter makes h a hold, or puts a waiter for it into the queue.
func (db *DB) enter(name string, m mode, try bool, h *hold) *waiter {
	db.mu.Lock()
	defer db.mu.Unlock()
	w := &waiter{mode: m, try: try, hold: h, resolved: make(chan struct{})}
	if db.closed {
		w.resolveLocked(nil, ErrClosed)
		return w
	}
	e := db.entries[name]
	if e == nil {
		e = &entry{db: db, name: name, key: Key(name)}
		db.entries[name] = e
	}
	w.entry = e
	joins := m == shared && e.grant != nil && e.grant.mode == shared && e.grant.lastsLocked()
	switch {
	case joins && e.queue.Len() == 0 && now() < e.grant.joinUntil:
		w.resolveLocked(e.grant, nil)
		return w
	case try && (e.patient > 0 || e.grant != nil && !joins):
		w.resolveLocked(nil, errBusy)
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
		e.grant.interruptLocked() // it admits readers
	}
	return w
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

// resolveLocked ends the wait of w, which is not in the queue. It has a grant or an error.
func (w *waiter) resolveLocked(g *grant, err error) {
	w.err = err
	if err == nil {
		w.hold.grant = g
		g.holds[w.hold] = struct{}{}
	}
	close(w.resolved)
}

// leave ends the wait of w for a goroutine that gives up. What it was granted at the last moment it gives back.
// It reports whether somebody else has held the lock, as far as is known, and otherwise why the server could
// not be asked, or nil.
func (w *waiter) leave() (held bool, trouble error) {
	e := w.entry
	e.db.mu.Lock()
	defer e.db.mu.Unlock()
	select {
	case <-w.resolved:
		if w.err == nil {
			go w.hold.release()
		}
		return false, nil
	default:
	}
	held, trouble = e.asking || e.grant != nil, e.trouble
	e.removeLocked(w)
	if head := e.headLocked(); e.stop != nil && (head == nil || head.mode != e.asked) {
		e.stop()
	}
	if e.grant != nil {
		e.grant.interruptLocked() // it admits readers that have waited for w, a writer
	}
	return held, trouble
}

// admitLocked makes the first waiter a holder, and if it is a reader, all those behind it up to the next
// writer.
func (e *entry) admitLocked(g *grant) {
	for w := e.headLocked(); w != nil && w.mode == g.mode; w = e.headLocked() {
		e.removeLocked(w)
		w.resolveLocked(g, nil)
		if g.mode == exclusive {
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
