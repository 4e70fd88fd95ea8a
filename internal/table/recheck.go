package table

import (
	"context"
	"time"
)

// What nothing tells those who wait, an entry looks for from time to time, while anybody waits:
//
//   - The path of a waiter may have come to name another file, while the holder of the old one lives
//     on. The waiter starts over on the new one.
//   - Readers may have come where a writer of another process held the lock. A leader that waits for
//     them as a writer locks pending, so that no more of them pass it.
//   - A writer of another process that readers of this one have let pass may have given up.
//
// The first look comes firstRecheck after somebody began to wait, and each later one after five times the
// interval, up to maxRecheck: to wake up for one costs a process some 0.3 ms of its runtime's own work.
const (
	firstRecheck = 8 * time.Millisecond
	maxRecheck   = time.Second
)

// A recheck is the timer of an entry for that. table.mu protects it.
type recheck struct {
	timer   *time.Timer
	armedIn time.Duration // what the timer is set to; 0 if it is not
	running bool
	next    time.Duration // from the end of this one, or from now
}

// beginLocked is for when somebody begins to wait. Where goroutines take turns they do so all the time.
// So nothing stops the timer when the last wait ends, but it is not set again.
func (c *recheck) beginLocked(e *entry) {
	c.next = e.table.firstRecheck
	if !c.running && (c.armedIn == 0 || c.armedIn > c.next) {
		c.armLocked(e)
	}
}

func (c *recheck) armLocked(e *entry) {
	c.armedIn = c.next
	if c.timer == nil {
		c.timer = time.AfterFunc(c.next, e.recheckNow)
	} else {
		c.timer.Reset(c.next)
	}
}

// A leader is one that waits.
type leader struct {
	request   *Request
	mode      Mode
	interrupt context.CancelCauseFunc // ends the wait, and makes its error the cause
	blocked   bool                    // in the kernel
}

// recheckNow looks once, at all of the above.
func (e *entry) recheckNow() {
	t, c := e.table, &e.recheck
	t.mu.Lock()
	c.armedIn = 0
	if c.running { // the timer was set again as it fired
		t.mu.Unlock()
		return
	}
	c.running = true
	c.next = min(5*c.next, maxRecheck)
	isStale := map[string]bool{} // by path
	for w := e.queue.head; w != nil; w = w.next {
		isStale[w.request.Path] = false
	}
	if e.state == waiting {
		isStale[e.leader.request.Path] = false
	}
	t.mu.Unlock()

	for path := range isStale {
		same, err := t.system.SameFile(path, e.id)
		isStale[path] = !same && err == nil
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	for w := e.queue.head; w != nil; {
		next := w.next
		if isStale[w.request.Path] {
			e.queue.remove(w)
			w.resolve(stale)
		}
		w = next
	}
	if l := &e.leader; e.state == waiting {
		if isStale[l.request.Path] {
			l.interrupt(ErrRetry)
		} else if l.blocked && l.mode == Exclusive && !l.request.ReaderPreference {
			interrupt, err := l.interrupt, error(nil)
			e.checkLocked(func() { err = e.file.LockPending() })
			if err != nil {
				interrupt(err)
			}
		}
	}
	e.admitReadersLocked()
	c.running = false
	if e.queue.head != nil || e.state == waiting {
		c.armLocked(e)
	}
}

// admitReadersLocked lets the readers in that wait at the head of the queue while others hold the lock,
// but not if a writer of another process waits for those to leave. It is for when they need not wait any
// more for a writer of this process, or for that one.
func (e *entry) admitReadersLocked() {
	want := func() bool {
		first := e.queue.head
		return e.state == held && e.mode == Shared && first != nil && first.mode == Shared
	}
	if !want() || e.checking != nil {
		return
	}
	if !time.Now().Before(e.sliceEnd) {
		pending, err := true, error(nil)
		e.checkLocked(func() { pending, err = e.file.Pending() })
		if pending || err != nil || !want() {
			return
		}
		e.sliceEnd = time.Now().Add(e.table.minSlice)
	}
	e.grantReadersLocked()
}

// checkLocked calls look without table.mu, for a goroutine that neither leads nor is a holder. Until look
// returns the file is not unlocked or closed.
func (e *entry) checkLocked(look func()) {
	e.checking = make(chan struct{})
	e.table.mu.Unlock()
	look()
	e.table.mu.Lock()
	close(e.checking)
	e.checking = nil
}

// awaitCheckLocked waits for the end of a check. None begins while the caller leads and is not blocked.
func (e *entry) awaitCheckLocked() {
	for e.checking != nil {
		over := e.checking
		e.table.mu.Unlock()
		<-over
		e.table.mu.Lock()
	}
}
