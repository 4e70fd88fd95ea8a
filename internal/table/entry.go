package table

import (
	"context"
	"time"
)

// An entry is one lock file of this process.
//
// It is in one of three states, of which enter is the only way in:
//
//	idle     nobody holds the lock or has the token. The entry is in the table
//	         only as long as a descriptor is open.
//	led      one goroutine has the token (busy), all others queue.
//	held     nobody has the token, holders have the lock.
type entry struct {
	table *Table
	id    ID

	// table.mu protects these.
	queue    queue
	busy     bool // somebody has the token
	waiting  bool // and has found the lock held by another process
	blocked  bool // and leaves the waiting to the system
	holders  int
	mode     Mode      // of the lock, while holders > 0
	turnEnds time.Time // see minTurn; zero between turns
	name     string    // that the file had when it was released last, if one is known
	namedAt  time.Time // when that was
	strays   []File    // descriptors to close when the lock is free
	expiry   *time.Timer
	armed    bool // expiry will come

	patroller *time.Timer
	patrolIn  time.Duration // that it was set to, if it will come
	patrols   int           // how often it has come for this queue

	// These belong to whoever has the token, and table.mu protects them while
	// nobody does.
	file      File
	opened    time.Time // when file was
	contended bool      // another process has had the lock since then
	turn      time.Duration
	standBack bool // before the next try
	missed    int  // how often nobody came, since others were seen
}

// outcome is what has become of a wish for the lock.
type outcome uint8

const (
	queued       outcome = iota
	granted              // the lock is held
	grantedNamed         // the same, and the path of the waiter named the file then
	leading              // the token is had
	refused              // a try has failed
	stale                // the path of the waiter names another file
)

// idle reports whether the entry is of no use to anybody. table.mu is held.
func (e *entry) idle() bool { return !e.busy && e.holders == 0 }

// decided reports whether it is known that who came now would have to wait. When it is not,
// a try waits to know: a system call is under way that may well bring the lock, and two
// readers that try at the same time must both succeed if nobody writes. table.mu is held.
func (e *entry) decided() bool { return !e.busy || e.waiting }

// admit lets the caller in if nobody of this process has to be waited for. table.mu is held.
func (e *entry) admit(mode Mode) outcome {
	switch {
	case e.idle():
		e.busy = true
		return leading
	case e.holders > 0 && e.mode == Shared && mode == Shared && e.queue.front() == nil:
		e.holders++
		return granted
	}
	return queued
}

// enter gets the lock, or queues and returns what to wait for, to be settled or ctx to be done; then
// served has to be called. Where the caller has not looked and would have to queue, it returns
// errStale. table.mu is held when it is called, and not when it returns.
func (e *entry) enter(ctx context.Context, r *Request, mode Mode, try, looked bool) (*waiter, error) {
	switch e.admit(mode) {
	case leading:
		e.table.mu.Unlock()
		return nil, e.lead(ctx, r, mode, try)

	case granted:
		gated, err := e.gated()
		switch {
		case err == nil && !gated:
			e.table.mu.Unlock()
			return nil, e.confirm(r)
		case err != nil || e.holders == 1 || !looked:
			e.table.mu.Unlock()
			_ = e.release("")
			if err == nil {
				err = errStale
			}
			return nil, err
		}
		e.holders--

	case queued:
		// Somebody else looked a moment ago, which is as good.
		if !looked && (r.Path != e.name || time.Since(e.namedAt) > minTurn) {
			e.table.mu.Unlock()
			return nil, errStale
		}
	}
	if try && e.decided() {
		e.table.mu.Unlock()
		return nil, errBusy
	}
	w := e.queue.push(r, mode, try)
	e.patrolLater()
	e.table.mu.Unlock()
	return w, nil
}

// gated reports whether readers who join others have to let a writer of another process pass.
// Those of this process who overlap could hold the lock for ever, and so have to look from time to
// time. table.mu is held, but not all the time.
func (e *entry) gated() (bool, error) {
	if time.Until(e.turnEnds) > 0 {
		return false, nil
	}
	e.table.mu.Unlock()
	gated, err := e.file.Gated() // it stays open, as the caller is a holder
	e.table.mu.Lock()
	if err == nil && !gated {
		e.turnEnds = time.Now().Add(e.table.minTurn)
	}
	return gated, err
}

// served gets the lock for one who has queued.
func (e *entry) served(ctx context.Context, w *waiter) error {
	if err := ctx.Err(); err != nil {
		e.leave(w) // it may be settled, too
		return err
	}
	switch w.state {
	case granted:
		return e.confirm(w.request)
	case grantedNamed:
		return nil
	case refused:
		return errBusy
	case stale:
		return errStale
	}

	// It has the token, but it can be long ago that it looked. With a file that was replaced
	// in the meantime a whole queue comes this way: should each open the new one to find that
	// out, there would be as many descriptors, which may not be closed while the new one is
	// locked.
	named, err := e.table.system.Names(w.request.Path, e.id)
	if !named || err != nil {
		if err == nil {
			err = errStale
		}
		e.stepDown()
		return err
	}
	return e.lead(ctx, w.request, w.mode, w.try)
}

// confirm makes sure that r.Path names the file, for one who has just got the lock, and gives that
// back if not. The name may have come to mean another file at any time before. Who replaces a file
// under a lock and who locks the new one would then both be inside:
//
//	we                        others
//	open a, which is inode 1
//	                          lock inode 1, remove a, unlock
//	lock inode 1
//	                          create a, which is inode 2; lock it
//
// Now that the file is locked, whoever plays by the rules has to wait.
func (e *entry) confirm(r *Request) error {
	named, err := e.table.system.Names(r.Path, e.id)
	if named {
		return nil
	}
	// An error of this unlock says nothing about the file that the path names now.
	_ = e.release("")
	if err == nil {
		err = errStale
	}
	return err
}

// patrol looks from time to time for what those who queue do not hear of. Another process may have
// replaced the file, so that nothing has to be waited for, and under one of its names only; and a
// writer that readers have to let pass may have given up.
func (e *entry) patrol() {
	e.table.mu.Lock()
	e.patrolIn = 0
	first := e.queue.front()
	if first == nil {
		e.patrols = 0
		e.table.mu.Unlock()
		return
	}
	stales := map[string]bool{} // paths
	for w := first; w != nil; w = w.next {
		stales[w.request.Path] = false
	}
	readers := e.holders > 0 && e.mode == Shared && first.mode == Shared
	if readers {
		e.holders++ // so that the file stays open
	}
	e.table.mu.Unlock()

	for path := range stales {
		named, err := e.table.system.Names(path, e.id)
		stales[path] = !named && err == nil
	}
	gated := true
	if readers {
		if g, err := e.file.Gated(); err == nil {
			gated = g
		}
	}

	e.table.mu.Lock()
	for w := e.queue.front(); w != nil; {
		next := w.next
		if stales[w.request.Path] {
			e.queue.remove(w)
			w.settle(stale)
			gated = false // or else who has waited for w would have to wait for the next time
		}
		w = next
	}
	if !gated {
		e.grantReaders()
	}
	e.patrols = min(e.patrols+1, 10_000) // so that no time overflows
	e.patrolLater()
	e.table.mu.Unlock()
	if readers {
		_ = e.release("")
	}
}

// patrolLater makes patrol come, and rarely where a leader hears events. table.mu is held.
func (e *entry) patrolLater() {
	w := e.queue.front()
	if w == nil {
		return
	}
	d := hardly * min(time.Duration(e.patrols+1)*w.request.Delay, w.request.MaxDelay)
	if e.holders > 0 || e.blocked {
		d = d / hardly * seldom
	}
	switch {
	case e.patrolIn > 0 && e.patrolIn <= d:
		return
	case e.patroller == nil:
		e.patroller = time.AfterFunc(d, e.patrol)
	default:
		e.patroller.Reset(d)
	}
	e.patrolIn = d
}

// lead locks the file for the caller, who has the token, and gives up the token in any case.
func (e *entry) lead(ctx context.Context, r *Request, mode Mode, try bool) error {
	if err := e.lock(ctx, r, mode, try); err != nil {
		e.stepDown()
		return err
	}
	e.table.mu.Lock()
	if e.turnEnds.IsZero() {
		e.turnEnds = time.Now().Add(e.turn)
	}
	e.hold(mode)
	e.table.mu.Unlock()
	return e.confirm(r)
}

// hold gives up the token for the first hold of the lock. table.mu is held.
func (e *entry) hold(mode Mode) {
	e.busy, e.waiting = false, false
	e.holders, e.mode = 1, mode
	e.grantReaders()
	e.refuseTries()
	e.patrolLater()
}

// release gives one hold back, and with the last one hands the lock on in this process or
// gives it back to the kernel. A path that is not empty is known to name the file.
func (e *entry) release(path string) error {
	e.table.mu.Lock()
	now := time.Now()
	e.table.name(e, path)
	e.namedAt = now
	e.holders--
	if e.holders > 0 {
		e.table.mu.Unlock()
		return nil
	}
	next := e.queue.front()
	over := next == nil || !now.Before(e.turnEnds)
	if !over && e.mode == Exclusive && next.mode == Exclusive {
		e.queue.pop()
		e.holders = 1
		if next.request.Path == path {
			next.settle(grantedNamed)
		} else {
			next.settle(granted)
		}
		e.table.mu.Unlock()
		return nil
	}
	e.busy = true
	downgrade := !over && e.mode == Exclusive
	keep := !over || next == nil && !e.contended && now.Sub(e.opened) < e.table.linger
	if over {
		e.turnEnds = time.Time{}
		e.standBack = next != nil
	}
	e.table.mu.Unlock()

	if downgrade && e.file.Downgrade() == nil {
		// Only who has the token takes waiters from the head of the queue, but those
		// who give up leave it.
		e.table.mu.Lock()
		if w := e.queue.front(); w != nil && w.mode == Shared {
			e.queue.pop()
			e.hold(Shared)
			w.settle(granted)
			e.table.mu.Unlock()
			return nil
		}
		e.table.mu.Unlock()
	}
	return e.letGo(keep)
}

// letGo unlocks the file for one who has the token, and gives that up.
func (e *entry) letGo(keep bool) error {
	if e.file == nil {
		return e.settle(keep)
	}
	// Unlock before close: a child of this process that is between fork and exec has the
	// descriptor too, and with it would keep the lock.
	err := e.file.Unlock()
	closeErr := e.settle(keep && err == nil)
	if err == nil {
		err = closeErr
	}
	return err
}

// stepDown is for a leader without the lock. What has to be unlocked is the gate, and
// after an error a lock whose state is not known; nothing can be done about another one.
func (e *entry) stepDown() { _ = e.letGo(false) }

// settle gives the token up, to the next in the queue if there is one. The kernel's lock is
// free. It closes what is open, but for the descriptor of the entry if keep says so.
func (e *entry) settle(keep bool) (err error) {
	e.table.mu.Lock()
	defer e.table.mu.Unlock()
	for {
		strays := e.strays
		e.strays = nil
		if len(strays) == 0 && (keep || e.file == nil) {
			break
		}
		e.table.mu.Unlock()
		for _, f := range strays {
			_ = f.Close()
		}
		if !keep {
			if closeErr := e.close(); err == nil {
				err = closeErr
			}
		}
		e.table.mu.Lock()
	}

	e.waiting = false
	if w := e.queue.pop(); w != nil {
		w.settle(leading)
		return err
	}
	e.busy, e.standBack, e.turnEnds = false, false, time.Time{}
	if e.file == nil {
		e.table.remove(e)
		return err
	}
	e.expireLater()
	return err
}

// close closes the descriptor of the entry, if it has one.
func (e *entry) close() error {
	if e.file == nil {
		return nil
	}
	f := e.file
	e.file = nil
	return f.Close()
}

// expireLater makes sure that the descriptor of an idle entry is closed. table.mu is held.
func (e *entry) expireLater() {
	if e.armed {
		return
	}
	e.armed = true
	d := max(0, e.table.linger-time.Since(e.opened))
	if e.expiry == nil {
		e.expiry = time.AfterFunc(d, e.expire)
	} else {
		e.expiry.Reset(d)
	}
}

// expire closes the descriptor of an entry that is idle. One that is not will be released, which
// closes it or arms the timer again; and an entry with no descriptor has left the table, where
// another one may have its place.
func (e *entry) expire() {
	e.table.mu.Lock()
	e.armed = false
	if !e.idle() || e.file == nil && len(e.strays) == 0 {
		e.table.mu.Unlock()
		return
	}
	e.busy = true
	e.table.mu.Unlock()
	_ = e.settle(false)
}

// leave is for a goroutine that does not want to queue any longer. What it was given at the
// last moment it passes on.
func (e *entry) leave(w *waiter) {
	e.table.mu.Lock()
	if w.state == queued {
		e.queue.remove(w)
		e.grantReaders() // that waited for w, a writer, only
	}
	e.table.mu.Unlock()
	switch w.state {
	case granted, grantedNamed:
		_ = e.release("")
	case leading:
		e.stepDown()
	}
}

// downgrade makes the only hold, which is exclusive, a shared one.
func (e *entry) downgrade() error {
	e.table.mu.Lock()
	e.busy = true
	e.table.mu.Unlock()
	err := e.file.Downgrade()
	e.table.mu.Lock()
	defer e.table.mu.Unlock()
	mode := Shared
	if err != nil {
		mode = Exclusive
	}
	e.hold(mode)
	return err
}

// grantReaders lets in the readers at the head of the queue while the lock is held shared.
// table.mu is held.
func (e *entry) grantReaders() {
	if e.holders == 0 || e.mode != Shared {
		return
	}
	for w := e.queue.front(); w != nil && w.mode == Shared; w = e.queue.front() {
		e.queue.pop()
		e.holders++
		w.settle(granted)
	}
}

// refuseTries fails those who do not want to wait, now that they would have to. table.mu is
// held.
func (e *entry) refuseTries() {
	for w := e.queue.front(); w != nil && e.queue.tries > 0; {
		next := w.next
		if w.try {
			e.queue.remove(w)
			w.settle(refused)
		}
		w = next
	}
}
