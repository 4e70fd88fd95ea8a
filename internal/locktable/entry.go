package locktable

import "time"

// A state is the state of an entry.
//
//	idle     Nobody holds the lock, and there is no leader. The entry stays in the table only as long as
//	         its descriptor is open.
//	locking  The leader is talking to the kernel, and may or may not get the lock.
//	waiting  The leader has found that another process holds the lock, and waits for it.
//	held     Goroutines of this process hold the lock, and there is no leader.
//
// In each state goroutines that want the lock may be waiting in the queue, except in idle.
// These are all transitions, with the methods that make them, and where they are called:
//
//	idle              → locking  lead       a goroutine arrives (enter), or the descriptor has been idle
//	                                        for long enough to be closed (closeIdle)
//	held              → locking  lead       the last holder is to unlock the file or to hand the lock on
//	                                        to readers (release), or the only one is to downgrade the
//	                                        lock (downgrade)
//	locking           → waiting  startWait  another process holds the lock (wait)
//	locking, waiting  → held     hold       the leader has locked the file (lock), or has downgraded the
//	                                        lock or could not (release, downgrade)
//	held              → held     handOn     the last holder hands the lock on (release)
//	locking, waiting  → locking  passLead   the leader steps down, and the next in the queue leads
//	                                        (stepDown)
//	locking, waiting  → idle     rest       the leader steps down, and the queue is empty (stepDown)
//
// Holders come and go while the lock is held shared: see enter and release.
//
// The caller of a function whose name ends in Locked holds Table.mu. No such function unlocks it.
type state uint8

const (
	idle state = iota
	locking
	waiting
	held
)

// An entry is one lock file that this process uses. Table.mu protects it, but for what says
// otherwise.
type entry struct {
	table *Table // table and id never change
	id    ID

	state   state
	queue   queue
	path    string        // that named the file when the lock was last released, or ""
	settled chan struct{} // closed when the entry leaves locking; nil if no try waits for that
	recheck recheck
	other   otherHolder
	leader  leader        // while waiting
	left    time.Duration // when a reader of this process last left the kernel: since start

	holders int           // while held
	mode    Mode          // of the lock, while held
	since   time.Duration // of the hold, while held: since start

	// heldUntil is when the lock was last known to be held by somebody: since start. Whether it
	// is held now the state tells.
	heldUntil time.Duration

	slice slice
	files
}

// leadLocked makes the caller the leader.
func (e *entry) leadLocked() { e.state = locking }

// startWaitLocked makes the leader one that waits for another process.
func (e *entry) startWaitLocked(l leader) {
	e.state, e.leader = waiting, l
	e.slice.endLocked(false)
	e.settleLocked()
}

// holdLocked ends the leadership of a goroutine that has locked the file, and now is a holder.
// If it is a reader, so become the readers at the head of the queue.
func (e *entry) holdLocked(mode Mode) {
	e.state, e.holders, e.mode, e.since = held, 1, mode, time.Since(start)
	e.other.known = false
	if e.settled != nil {
		e.settleLocked()
	}
	if e.queue.head != nil {
		e.grantReadersLocked()
	}
}

// handOnLocked makes the next in the queue the only holder, in place of the caller. Path named
// the file a moment ago, if it is not empty.
func (e *entry) handOnLocked(path string) {
	w := e.queue.pop()
	e.holders, e.since = 1, e.releasedAt.Sub(start)
	if w.request.Path == path {
		w.resolve(grantedSame)
	} else {
		w.resolve(granted)
	}
}

// passLeadLocked makes the next in the queue the leader, in place of the caller, if there is one.
func (e *entry) passLeadLocked() bool {
	w := e.queue.pop()
	if w == nil {
		return false
	}
	e.state = locking
	w.resolve(leading)
	return true
}

// restLocked ends the leadership of the caller. Nobody wants the lock.
func (e *entry) restLocked() {
	e.state = idle
	e.slice.endLocked(false)
	e.settleLocked()
}

// settleLocked lets the tries look again that wait until the leader knows whether the lock is free.
func (e *entry) settleLocked() {
	if e.settled != nil {
		close(e.settled)
		e.settled = nil
	}
}

// grantReadersLocked makes the readers at the head of the queue holders if the lock is held shared.
func (e *entry) grantReadersLocked() {
	if e.state != held || e.mode != Shared {
		return
	}
	for w := e.queue.head; w != nil && w.mode == Shared; w = e.queue.head {
		e.queue.pop()
		e.holders++
		w.resolve(granted)
	}
}

// enqueueLocked puts a goroutine into the queue.
func (e *entry) enqueueLocked(r *Request, mode Mode) *waiter {
	if e.queue.head == nil {
		e.recheck.beginLocked(e)
		if e.state == held && e.mode == Exclusive {
			e.slice.beginLocked(e.table.sliceLength)
		}
	}
	return e.queue.push(r, mode)
}

// awaitSettlementLocked returns a waiter that is no member of the queue. It is resolved when
// the leader knows whether the lock is free.
func (e *entry) awaitSettlementLocked() *waiter {
	if e.settled == nil {
		e.settled = make(chan struct{})
	}
	return &waiter{since: time.Since(start), outcome: settled, resolved: e.settled}
}
