package table

import (
	"context"
	"time"
)

// A state is what an entry is in:
//
//	idle     nobody holds the lock, and nobody leads. The entry is in the table only while it has a
//	         descriptor open.
//	locking  a leader talks to the kernel, and whether it gets the lock is open.
//	waiting  the leader has found the lock held by another process, and waits for it.
//	held     holders have the lock, and nobody leads.
//
// All others who want the lock queue. The states change as follows:
//
//	idle              → locking  a goroutine comes, and leads (enterLocked), or the file is closed (closeIdle)
//	locking           → waiting  another process holds the lock (wait)
//	locking, waiting  → held     the leader has locked the file (lead), or downgraded the lock (release,
//	                             downgrade)
//	locking, waiting  → locking  the leader gives up, and the next in the queue leads (pass)
//	locking, waiting  → idle     the leader gives up, and nobody queues (pass)
//	held              → held     holders come and go, or the last hands the lock on (release)
//	held              → locking  the last holder leads, to unlock the file (release), or the only one
//	                             to downgrade the lock (downgrade)
type state uint8

const (
	idle state = iota
	locking
	waiting
	held
)

// An entry is one lock file of this process.
type entry struct {
	table *Table
	id    ID

	// table.mu protects these.
	state        state
	queue        queue
	holders      int
	mode         Mode      // of the lock, while held
	sliceEnd     time.Time // see minSlice; zero while no slice has begun
	name         string    // that the file had when it was released last, if one is known
	releasedAt   time.Time // when that was
	pendingClose []File    // to be closed when the lock is free
	idleTimer    *time.Timer
	idleTimerSet bool
	leader       leader        // while waiting
	checking     chan struct{} // closed when a check is over; nil while there is none
	recheck      recheck

	// These belong to the leader, and table.mu protects them while nobody leads.
	file       File
	slice      time.Duration
	mustYield  bool // before locking the file
	idleYields int  // how often nobody came in a yield, since another process was seen
}

// enterLocked decides what becomes of a goroutine that comes. It returns a waiter only for queued. One
// that guesses what its path names may become a holder or lead, which looks again, but it may not queue:
// it could wait forever behind a file that the path does not name any more. The caller holds table.mu.
func (e *entry) enterLocked(r *Request, mode Mode, try, guess bool) (outcome, *waiter) {
	switch {
	case e.state == idle:
		e.state = locking
		return leading, nil
	case e.state == held && e.mode == Shared && mode == Shared && e.queue.head == nil:
		e.holders++
		if time.Now().Before(e.sliceEnd) {
			return granted, nil
		}
		return joining, nil
	case guess && (try || r.Path != e.name || time.Since(e.releasedAt) > maxGuess):
		return stale, nil
	// While the leader is locking, a try waits for the answer of the kernel: if that is yes, two readers
	// that try at the same time must both succeed.
	case try && e.state != locking:
		return refused, nil
	}
	return queued, e.enqueueLocked(r, mode, try)
}

// maxGuess is for how long another goroutine's look at a path is good enough to queue.
const maxGuess = time.Millisecond

func (e *entry) enqueueLocked(r *Request, mode Mode, try bool) *waiter {
	if e.queue.head == nil {
		e.recheck.beginLocked(e)
		if e.state == held && e.mode == Exclusive {
			e.beginSliceLocked()
		}
	}
	return e.queue.push(r, mode, try)
}

// join is for a reader that has become a holder beside others after the end of their slice. Readers of
// one process that overlap could hold the lock forever, and so have to look from time to time whether a
// writer of another process waits for them to leave. If one does, the reader queues.
func (e *entry) join(r *Request, try, guess bool) (*waiter, error) {
	t := e.table
	pending, err := e.file.Pending() // the file stays open, as the caller is a holder
	t.mu.Lock()
	if err == nil && !pending {
		e.sliceEnd = time.Now().Add(t.minSlice)
		t.mu.Unlock()
		return nil, e.verify(r)
	}
	if err == nil && !try && !guess && e.holders > 1 {
		e.holders--
		w := e.enqueueLocked(r, Shared, try)
		t.mu.Unlock()
		return w, nil
	}
	t.mu.Unlock()
	_ = e.release("")
	switch {
	case err != nil:
		return nil, err
	case try:
		return nil, ErrBusy
	}
	return nil, ErrRetry
}

// finish acquires the lock for a goroutine that has queued, after its wait.
func (e *entry) finish(ctx context.Context, w *waiter) error {
	if err := ctx.Err(); err != nil {
		e.cancel(w) // which may be resolved, too
		return err
	}
	switch w.outcome {
	case granted:
		return e.verify(w.request)
	case grantedSame:
		return nil
	case refused:
		return ErrBusy
	case stale:
		return ErrRetry
	}

	// It leads, but may have looked at its path long ago. If the file was replaced meanwhile, a whole
	// queue comes this way. Were each of them to open the new file to find that out, there would be as
	// many descriptors, which must not be closed while the new file is locked.
	same, err := e.table.system.SameFile(w.request.Path, e.id)
	if !same || err != nil {
		if err == nil {
			err = ErrRetry
		}
		_ = e.unlockAndPass(false)
		return err
	}
	return e.lead(ctx, w.request, w.mode, w.try)
}

// cancel is for a goroutine that does not want to wait any longer. What it was given at the last moment
// it passes on.
func (e *entry) cancel(w *waiter) {
	e.table.mu.Lock()
	o := w.outcome
	if o == queued {
		e.queue.remove(w)
		e.admitReadersLocked() // that wait for w alone, a writer
	}
	e.table.mu.Unlock()
	switch o {
	case granted, grantedSame:
		_ = e.release("")
	case leading:
		_ = e.pass(true)
	}
}

// lead locks the file for the caller, which leads, and ends the lead in any case.
func (e *entry) lead(ctx context.Context, r *Request, mode Mode, try bool) error {
	waited, err := e.lock(ctx, r, mode, try)
	if err != nil {
		// After most errors the state of the lock is not known: closing the file frees it.
		_ = e.unlockAndPass(err == ErrBusy || ctx.Err() != nil)
		return err
	}
	e.table.mu.Lock()
	e.becomeHeldLocked(mode)
	if mode == Shared || e.queue.head != nil {
		e.beginSliceLocked()
	}
	e.table.mu.Unlock()
	if err := e.verify(r); err != ErrRetry || !waited {
		return err
	}
	return errRetryAfterWait
}

// becomeHeldLocked ends the lead of a goroutine that has locked the file. It is a holder now, and so are
// the readers that came right behind it, if it is one.
func (e *entry) becomeHeldLocked(mode Mode) {
	e.state, e.holders, e.mode = held, 1, mode
	e.grantReadersLocked()
	for w := e.queue.head; w != nil && w.try; w = e.queue.head {
		e.queue.pop()
		w.resolve(refused)
		e.grantReadersLocked() // that came behind a writer's try
	}
	e.refuseTriesLocked()
}

// verify makes sure, for a new holder, that its path names the file, and releases the lock if not. The
// path may have come to name another file at any time before. One process that replaces a file under its
// lock, and another that locks the new one, would then both be holders:
//
//	we                        others
//	open a, which is inode 1
//	                          lock inode 1, remove a, unlock
//	lock inode 1
//	                          create a, which is inode 2; lock it
//
// Now that the file is locked, a process that replaces it only under its lock has to wait.
func (e *entry) verify(r *Request) error {
	same, err := e.table.system.SameFile(r.Path, e.id)
	if same {
		return nil
	}
	// An error of this unlock says nothing about the file that the path names now.
	_ = e.release("")
	if err == nil {
		err = ErrRetry
	}
	return err
}

// release gives one hold back. The last holder, if its process has queued for the lock and its slice is
// not over, hands the lock on within the process: to a writer without a system call, and to readers by a
// downgrade if it is a writer. Otherwise it unlocks the file. A path that is not empty is known to name
// the file.
func (e *entry) release(path string) error {
	e.table.mu.Lock()
	now := time.Now()
	e.table.nameLocked(e, path)
	e.releasedAt = now
	e.holders--
	if e.holders > 0 {
		e.table.mu.Unlock()
		return nil
	}
	next := e.queue.head
	over := next == nil || !now.Before(e.sliceEnd)
	if !over && e.mode == Exclusive && next.mode == Exclusive {
		e.queue.pop()
		e.holders = 1
		if next.request.Path == path {
			next.resolve(grantedSame)
		} else {
			next.resolve(granted)
		}
		e.table.mu.Unlock()
		return nil
	}
	e.state = locking
	e.awaitCheckLocked()
	if over {
		e.sliceEnd = time.Time{}
		e.mustYield = next != nil
	}
	e.table.mu.Unlock()

	if !over && e.mode == Exclusive && e.file.Downgrade() == nil {
		e.table.mu.Lock()
		// Only a leader takes waiters from the head of the queue, but those that give up leave it.
		if w := e.queue.head; w != nil && w.mode == Shared {
			e.queue.pop()
			e.becomeHeldLocked(Shared)
			w.resolve(granted)
			e.table.mu.Unlock()
			return nil
		}
		e.table.mu.Unlock()
	}
	return e.unlockAndPass(true)
}

// unlockAndPass unlocks the file, for a leader, and ends its lead.
func (e *entry) unlockAndPass(keep bool) error {
	if e.file == nil {
		return e.pass(keep)
	}
	// Unlock before close: a child of this process that is between fork and exec has the descriptor, too,
	// and would keep the lock by it.
	err := e.file.Unlock()
	if closeErr := e.pass(keep && err == nil); err == nil {
		err = closeErr
	}
	return err
}

// pass ends the lead of a goroutine that has not locked the file: the next in the queue leads, if there
// is one. It closes what is open, but not the descriptor of the entry if keep says so and somebody can
// use it.
func (e *entry) pass(keep bool) (err error) {
	e.table.mu.Lock()
	defer e.table.mu.Unlock()
	for {
		others := e.pendingClose
		e.pendingClose = nil
		done := !keep || e.queue.head == nil && e.table.idleTimeout == 0
		if len(others) == 0 && (e.file == nil || !done) {
			break
		}
		e.table.mu.Unlock()
		for _, f := range others {
			_ = f.Close()
		}
		if done {
			if closeErr := e.close(); err == nil {
				err = closeErr
			}
		}
		e.table.mu.Lock()
	}

	if w := e.queue.pop(); w != nil {
		e.state = locking
		w.resolve(leading)
		return err
	}
	e.state, e.mustYield, e.sliceEnd = idle, false, time.Time{}
	if e.file == nil {
		e.table.removeLocked(e)
		return err
	}
	e.closeLaterLocked()
	return err
}

// close closes the descriptor of the entry, for a leader, if it has one.
func (e *entry) close() error {
	if e.file == nil {
		return nil
	}
	f := e.file
	e.file = nil
	return f.Close()
}

// closeLaterLocked makes sure that the descriptor of an idle entry is closed.
func (e *entry) closeLaterLocked() {
	if e.idleTimerSet {
		return
	}
	e.idleTimerSet = true
	d := max(0, e.table.idleTimeout-time.Since(e.releasedAt))
	if e.idleTimer == nil {
		e.idleTimer = time.AfterFunc(d, e.closeIdle)
	} else {
		e.idleTimer.Reset(d)
	}
}

// closeIdle closes the descriptor of an entry that has been idle for long enough. An entry that is not
// idle comes here again after it was released, and one that has no descriptor has left the table, where
// another one may have its place.
func (e *entry) closeIdle() {
	e.table.mu.Lock()
	e.idleTimerSet = false
	if e.state != idle || e.file == nil && len(e.pendingClose) == 0 {
		e.table.mu.Unlock()
		return
	}
	if time.Since(e.releasedAt) < e.table.idleTimeout {
		e.closeLaterLocked()
		e.table.mu.Unlock()
		return
	}
	e.state = locking
	e.table.mu.Unlock()
	_ = e.pass(false)
}

// downgrade makes the only hold, which is exclusive, a shared one.
func (e *entry) downgrade() error {
	e.table.mu.Lock()
	e.state = locking
	e.table.mu.Unlock()
	err := e.file.Downgrade()
	mode := Shared
	if err != nil {
		mode = Exclusive
	}
	e.table.mu.Lock()
	e.becomeHeldLocked(mode)
	e.table.mu.Unlock()
	return err
}

// grantReadersLocked lets the readers at the head of the queue in while the lock is held shared.
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

// refuseTriesLocked fails those in the queue that do not want to wait, now that they would have to.
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
