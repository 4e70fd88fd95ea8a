package locktable

import "time"

// As long as somebody waits, an entry rechecks from time to time what nothing reports:
//
//   - The path of a waiter may have come to name another file, while the holder of the old one
//     goes on. The waiter starts over on the new file.
//   - Readers may hold the lock by now, where a writer of another process held it. A writer
//     that waits for them as the leader locks pending, so that no more of them overtake it.
//   - Another process may hold the lock by now, which the error of a wait should tell.
//   - A writer of another process may have given up. Readers of this process that queue behind
//     it can hold the lock together with others.
//
// The first recheck comes firstRecheck after the first waiter. Each later interval is five
// times as long, up to maxRecheck: one recheck of an otherwise idle process costs some 0.3 ms
// of its runtime's work.
const (
	firstRecheck = 8 * time.Millisecond
	maxRecheck   = time.Second
)

// A recheck is the timer of an entry. table.mu protects it.
type recheck struct {
	timer   *time.Timer
	setTo   time.Duration // what the timer is set to; 0 if it is not set
	running bool
	next    time.Duration // the interval after this recheck, or from now
}

// beginLocked is called when a goroutine is the first to wait. Where goroutines take turns that
// happens all the time. So the timer is not stopped when the last wait ends; it fires once
// more, and is not set again.
func (c *recheck) beginLocked(e *entry) {
	c.next = e.table.firstRecheck
	if !c.running && (c.setTo == 0 || c.setTo > c.next) {
		c.setTimerLocked(e)
	}
}

func (c *recheck) setTimerLocked(e *entry) {
	c.setTo = c.next
	if c.timer == nil {
		c.timer = time.AfterFunc(c.next, e.recheckNow)
	} else {
		c.timer.Reset(c.next)
	}
}

func (c *recheck) stopLocked() {
	if c.timer != nil {
		c.timer.Stop()
	}
}

// recheckNow rechecks all of the above once.
func (e *entry) recheckNow() {
	t, c := e.table, &e.recheck
	t.mu.Lock()
	c.setTo = 0
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
	for w := e.queue.head; w != nil; {
		next := w.next
		if isStale[w.request.Path] {
			e.queue.remove(w)
			w.resolve(stale)
		}
		w = next
	}
	t.mu.Unlock()

	e.recheckLeader(isStale)
	e.admitReaders()

	t.mu.Lock()
	c.running = false
	if e.queue.head != nil || e.state == waiting {
		c.setTimerLocked(e)
	}
	t.mu.Unlock()
}

// recheckLeader rechecks the wait of the leader, if there is one.
func (e *entry) recheckLeader(isStale map[string]bool) {
	t := e.table
	t.mu.Lock()
	l := e.leader
	switch {
	case e.state != waiting:
		t.mu.Unlock()
		return
	case isStale[l.request.Path]:
		t.mu.Unlock()
		l.interrupt(errReplaced)
		return
	case !l.blocked || !t.checking.takeLocked(e):
		t.mu.Unlock()
		return
	}
	f := e.file
	t.mu.Unlock()

	h, known := f.Holder()
	var err error
	if l.mode == Exclusive && !l.request.ReaderPreference {
		err = f.LockPending()
	}

	t.mu.Lock()
	e.other.noteLocked(h, known)
	t.checking.endLocked(e)
	t.mu.Unlock()
	if err != nil {
		l.interrupt(err)
	}
}

// admitReaders makes the readers at the head of the queue holders beside others, unless a
// writer of another process waits for those. It is called when a writer ahead of them, of this
// process or of another, may have given up.
func (e *entry) admitReaders() {
	t := e.table
	t.mu.Lock()
	defer t.mu.Unlock()
	canJoin := func() bool {
		first := e.queue.head
		return e.state == held && e.mode == Shared && first != nil && first.mode == Shared
	}
	if !canJoin() {
		return
	}
	if !e.slice.lastsLocked() {
		if !t.checking.takeLocked(e) {
			return // whoever has the turn is here, too
		}
		f := e.file
		t.mu.Unlock()
		pending, err := f.Pending()
		t.mu.Lock()
		t.checking.endLocked(e)
		if pending || err != nil || !canJoin() {
			return
		}
		e.slice.renewLocked(t.sliceLength)
	}
	e.grantReadersLocked()
}
