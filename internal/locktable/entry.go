package locktable

import "time"

// A state is the state of an entry. Every name that ends in Locked is of a function whose caller holds
// Table.mu.
//
//	idle     Nobody holds the lock, and there is no leader. The entry stays in the table only as long as
//	         its descriptor is open.
//	locking  The leader is talking to the kernel, and may or may not get the lock.
//	waiting  The leader has found that another process holds the lock, and waits for it.
//	held     Goroutines of this process hold the lock, and there is no leader.
//
// In each state goroutines that want the lock may be waiting in the queue, except in idle. These are all
// transitions, with the functions that make them:
//
//	idle              → locking  a goroutine arrives and leads (enterLocked), or the descriptor has been
//	                             idle for long enough to be closed (closeIdle)
//	locking           → waiting  another process holds the lock (wait)
//	locking, waiting  → held     the leader has locked the file (lead)
//	locking, waiting  → locking  the leader steps down, and the next in the queue leads (stepDown)
//	locking, waiting  → idle     the leader steps down, and the queue is empty (stepDown)
//	held              → held     holders come and go, or the last one hands the lock on (release)
//	held              → locking  the last holder leads, to unlock the file or to hand the lock on to
//	                             readers (release), or the only one, to downgrade the lock (downgrade)
//	locking           → held     the lock is downgraded (release, downgrade), or could not be (downgrade)
type state uint8

const (
	idle state = iota
	locking
	waiting
	held
)

// An entry is one lock file that this process uses.
type entry struct {
	table *Table
	id    ID

	// table.mu protects these.
	state        state
	queue        queue
	holders      int       // while held
	since        instant   // of the hold, while held
	mode         Mode      // of the lock, while held
	sliceEnd     time.Time // of the time slice: see fairness.go; zero if none has begun
	path         string    // that named the file when the lock was last released, or ""
	releasedAt   time.Time // when the lock was last released
	pendingClose []File    // to be closed when the lock is free
	spare        File      // the same, but Holders may use it until then
	idleTimer    *time.Timer
	idleTimerSet bool
	leader       leader        // while waiting
	checking     chan struct{} // closed when a check is over; nil if there is none: see checkLocked
	recheck      recheck

	unblockedAt   instant // when a leader last left the kernel,
	unblockedMode Mode    // where it has waited for a lock in this mode

	heldBy      Holder // another process, that held the lock at heldByAt
	heldByOther bool   // such a process was known then
	heldByAt    instant

	// These belong to the leader, and to table.mu while there is none. The holders may use file, too.
	file       File
	slice      time.Duration
	mustYield  bool // before locking the file
	idleYields int  // since another process was last noticed, how often nobody used a yield
}

// becomeHeldLocked ends the leadership of a goroutine that has locked the file, and now is a holder. If it
// is a reader, so become the readers at the head of the queue.
func (e *entry) becomeHeldLocked(mode Mode) {
	e.state, e.holders, e.mode, e.since, e.heldByOther = held, 1, mode, now(), false
	e.grantReadersLocked()
	for w := e.queue.head; w != nil && w.try; w = e.queue.head {
		e.queue.pop()
		w.resolve(refused)
		e.grantReadersLocked() // that were behind a writer's try
	}
	e.refuseTriesLocked()
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

// refuseTriesLocked refuses the tries in the queue, which would have to wait for a release from now on.
func (e *entry) refuseTriesLocked() {
	for w := e.queue.head; w != nil && e.queue.tries > 0; {
		next := w.next
		if w.try {
			e.queue.remove(w)
			w.resolve(refused)
		}
		w = next
	}
}
