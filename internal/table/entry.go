package table

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
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
	holders  int
	mode     Mode      // of the lock, while holders > 0
	turnEnds time.Time // see minTurn; zero between turns
	lastPath string    // named the file when it was released last,
	lastTime time.Time // which was then
	strays   []File    // descriptors to close when the lock is free
	expiry   *time.Timer
	armed    bool // expiry will come
	patrols  int  // how often patrol has come for this queue; 0 if it will not come

	// These belong to whoever has the token, and table.mu protects them while
	// nobody does.
	file      File
	opened    time.Time // when file was
	contended bool      // another process has had the lock since then
	turn      time.Duration
	standBack bool // before the next try
	missed    int  // how often nobody came, since others were seen
}

// A process whose goroutines queue for a lock keeps it from one to the next for the time of
// a turn. Then it lets go of it, and stands back for long enough that a waiter in another
// process, who is woken by that, wins: one who unlocks and locks again at once wins
// dozens of times before the other one runs at all. When nobody comes for several times it is
// alone, and its turns get longer.
//
// One who was woken and yet lost claims the lock, for which everybody stands back who comes
// later, with one goroutine or many:
//
//	we                 A                  B
//	wait               holds              waits
//	                   unlocks, closes
//	wake up                               wakes up, locks
//	try: busy; claim
//	                   sees the claim
//	                                      unlocks, closes
//	wake up, lock      stands back        sees the claim
//
// So whoever waits is passed by each of the others once at most, as long as it gets to run within
// patience. It is not longer as the one with the claim can be stopped.
const (
	minTurn   = time.Millisecond
	maxTurn   = 10 * time.Millisecond
	standBack = 200 * time.Microsecond
	alone     = 4 // times that nobody came
	patience  = 2 * time.Millisecond
)

// outcome is what has become of a wish for the lock.
type outcome uint8

const (
	queued  outcome = iota
	granted         // the lock is held
	named           // the same, and the path of the waiter named the file then
	leading         // the token is had
	refused         // a try has failed
	stale           // the path of the waiter names another file
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

// enter gets the lock, and reports whether it is known that r.Path named the file when it did.
// Where the caller has not looked and would have to queue, it returns errStale. table.mu is held
// when it is called, and not when it returns.
func (e *entry) enter(ctx context.Context, r *Request, mode Mode, try, looked bool) (bool, error) {
	gated := false
	switch e.admit(mode) {
	case leading:
		e.table.mu.Unlock()
		return false, e.lead(ctx, r, mode, try)

	case granted:
		over := time.Until(e.turnEnds) <= 0
		e.table.mu.Unlock()
		if !over {
			return false, nil
		}
		// Readers of this process that overlap could hold the lock for ever. So they
		// have to look from time to time if a writer of another one waits.
		var err error
		gated, err = e.file.Gated() // it stays open, as we are a holder
		e.table.mu.Lock()
		if err == nil && !gated {
			e.turnEnds = time.Now().Add(e.table.minTurn)
			e.table.mu.Unlock()
			return false, nil
		}
		if err != nil || e.holders == 1 || !looked {
			e.table.mu.Unlock()
			_ = e.release("")
			if err == nil {
				err = errStale
			}
			return false, err
		}
		e.holders--

	case queued:
		// Somebody else looked a moment ago, which is as good.
		if !looked && (r.Path != e.lastPath || time.Since(e.lastTime) > minTurn) {
			e.table.mu.Unlock()
			return false, errStale
		}
	}
	if try && e.decided() {
		e.table.mu.Unlock()
		return false, errBusy
	}
	w := e.queue.push(r, mode, try)
	if e.patrols == 0 {
		e.patrolAfter(seldom * r.Delay)
	}
	e.table.mu.Unlock()

	select {
	case <-w.wake:
	case <-ctx.Done():
	}
	if err := ctx.Err(); err != nil {
		e.leave(w) // select takes any case that is ready
		return false, err
	}
	switch w.state {
	case granted, named:
		return w.state == named, nil
	case refused:
		return false, errBusy
	case stale:
		return false, errStale
	}

	// It has the token, but it can be long ago that it looked. With a file that was replaced
	// in the meantime a whole queue comes this way: should each open the new one to find that
	// out, there would be as many descriptors, which may not be closed while the new one is
	// locked.
	named, err := e.table.system.Names(r.Path, e.id)
	if !named || err != nil {
		if err == nil {
			err = errStale
		}
		e.stepDown()
		return false, err
	}
	return false, e.lead(ctx, r, mode, try)
}

// patrol looks after the head of the queue from time to time, as who waits for another goroutine
// hears nothing of other processes: of one that has replaced the file, so that nothing has to be
// waited for; and of a writer that readers have to let pass, and that has given up.
func (e *entry) patrol() {
	e.table.mu.Lock()
	w := e.queue.front()
	if w == nil {
		e.patrols = 0
		e.table.mu.Unlock()
		return
	}
	readers := e.holders > 0 && e.mode == Shared && w.mode == Shared
	if readers {
		e.holders++ // so that the file stays open
	}
	e.table.mu.Unlock()

	named, err := e.table.system.Names(w.request.Path, e.id)
	gated := true
	if readers {
		if g, err := e.file.Gated(); err == nil {
			gated = g
		}
	}

	e.table.mu.Lock()
	d := seldom * min(time.Duration(e.patrols)*w.request.Delay, w.request.MaxDelay)
	if !named && err == nil && e.queue.front() == w { // it may have left
		e.queue.remove(w)
		w.settle(stale)
		d = 0 // the next ones will hardly be better off
	}
	if !gated {
		e.grantReaders()
	}
	e.patrolAfter(d)
	e.table.mu.Unlock()
	if readers {
		_ = e.release("")
	}
}

// patrolAfter makes patrol come. table.mu is held.
func (e *entry) patrolAfter(d time.Duration) {
	e.patrols++
	time.AfterFunc(d, e.patrol)
}

// lead locks the file for the caller, who has the token, and gives up the token in any case.
func (e *entry) lead(ctx context.Context, r *Request, mode Mode, try bool) error {
	err := e.lock(ctx, r, mode, try)
	if err != nil {
		e.stepDown()
		return err
	}
	e.table.mu.Lock()
	defer e.table.mu.Unlock()
	if e.turnEnds.IsZero() {
		e.turnEnds = time.Now().Add(e.turn)
	}
	r.last = e.id
	e.hold(mode)
	return nil
}

// hold gives up the token for the first hold of the lock. table.mu is held.
func (e *entry) hold(mode Mode) {
	e.busy, e.waiting = false, false
	e.holders, e.mode = 1, mode
	e.grantReaders()
	e.refuseTries()
}

// lock gets the kernel's lock. The caller has the token.
func (e *entry) lock(ctx context.Context, r *Request, mode Mode, try bool) error {
	if e.file == nil && !try {
		e.giveWay(ctx)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := e.try(r, mode); err != errBusy || try {
		return err
	}

	e.contended, e.turn, e.missed = true, e.table.minTurn, 0
	e.table.mu.Lock()
	e.waiting, e.turnEnds = true, time.Time{}
	e.refuseTries()
	e.table.mu.Unlock()

	if ctx.Done() == nil && e.file != nil {
		if ok, err := e.wait(r, mode); ok || err != nil {
			return err
		}
	}
	return e.await(ctx, r, mode)
}

// wait lets the system do the waiting, if it can.
func (e *entry) wait(r *Request, mode Mode) (bool, error) {
	if !r.ReaderPreference {
		// Whether it has been passed it does not get to know.
		defer e.table.system.Claim(e.id)()
		if mode == Exclusive {
			if err := e.file.Gate(true); err != nil {
				return false, err
			}
		}
	}
	return e.file.Wait(mode)
}

// giveWay lets others go first: after a turn of this process whoever waits, and always one with a
// claim.
func (e *entry) giveWay(ctx context.Context) {
	least := time.Duration(0)
	if e.standBack {
		e.standBack = false
		least = standBack
	}
	d := standBack
	for waited := time.Duration(0); waited < patience && ctx.Err() == nil; waited += d {
		if waited >= least && !e.table.system.Claimed(e.id) {
			return
		}
		if waited > 0 {
			d = min(2*d, patience-waited)
		}
		start := time.Now()
		timer{}.Wait(ctx, d)
		// Who sleeps for longer than he wanted may have missed that somebody came.
		if waited < least && time.Since(start) < 2*standBack {
			if e.missed++; e.missed > alone {
				e.turn = min(2*e.turn, e.table.maxTurn)
			}
		}
	}
}

// try asks the kernel once, with a descriptor that it opens if there is none. It returns
// errBusy only if the path names the file of this entry: behind another one it is not worth
// to wait.
func (e *entry) try(r *Request, mode Mode) error {
	if e.file != nil && !e.file.Permits(mode) {
		if err := e.close(); err != nil {
			return err
		}
	}
	if e.file == nil {
		f, id, err := e.table.system.Open(r.Path, mode)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return errStale
		case err == ErrLeased:
			return errBusy
		case err != nil:
			return err
		case id != e.id:
			e.table.adopt(f, id)
			return errStale
		}
		e.file, e.opened, e.contended = f, time.Now(), false
	}

	ok, err := e.file.Try(mode)
	if ok || err != nil {
		return err
	}
	named, err := e.table.system.Names(r.Path, e.id)
	switch {
	case err != nil:
		return err
	case !named:
		return errStale
	}
	return errBusy
}

// echo is when to try again after an event that brought nothing: a process that dies closes
// its files first and loses its locks a moment later.
const echo = time.Millisecond

// seldom is by how much what comes without an event is rarer where it is a backstop: to wake up for
// it costs a process up to a millisecond of its runtime's own work.
const seldom = 10

// await tries until it has the lock: on each event, and after each delay.
func (e *entry) await(ctx context.Context, r *Request, mode Mode) error {
	var watch Watch = timer{}
	if e.file != nil { // or nobody has let us open it yet
		watch = e.file.Watch()
	}
	defer watch.Stop()
	step, limit := r.Delay, r.MaxDelay
	if watch.Complete() {
		// Foreign programs may unlock the file without an event, but that is no reason to
		// burn the processor of all others.
		step, limit = seldom*step, seldom*limit
	}
	// What happened between the last try and the watch has made no event here. So this
	// begins as if there had just been one:
	//
	//	holder dies                   we
	//	                              try: busy
	//	closes its files: an event
	//	                              watch; try: busy
	//	loses its lock                wait for an event
	next, delay := echo, step
	for event, claimed := false, false; ; {
		if err := e.try(r, mode); err != errBusy {
			return err
		}
		if event && !claimed && !r.ReaderPreference {
			claimed = true
			defer e.table.system.Claim(e.id)()
		}
		if mode == Exclusive && !r.ReaderPreference && e.file != nil {
			if err := e.file.Gate(false); err != nil {
				return err
			}
		}
		event = watch.Wait(ctx, jitter(min(next, delay)))
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case event:
			next = echo
		case next < delay:
			next *= 2
		default:
			delay = min(delay+step, limit)
		}
	}
}

// A timer is a watch that sees nothing.
type timer struct{}

func (timer) Wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

func (timer) Complete() bool { return false }
func (timer) Stop()          {}

// jitter shortens d by up to a half. Tries at fixed times could miss for ever a lock that is
// free at fixed times.
func jitter(d time.Duration) time.Duration {
	return d - rand.N(d/2+1)
}

// release gives one hold back, and with the last one hands the lock on in this process or
// gives it back to the kernel. A path that is not empty is known to name the file.
func (e *entry) release(path string) error {
	e.table.mu.Lock()
	e.lastPath = path
	if path != "" {
		e.lastTime = time.Now()
	}
	e.holders--
	if e.holders > 0 {
		e.table.mu.Unlock()
		return nil
	}
	next := e.queue.front()
	over := next == nil || time.Until(e.turnEnds) <= 0
	if !over && e.mode == Exclusive && next.mode == Exclusive {
		e.queue.pop()
		e.holders = 1
		if next.request.Path == path {
			next.settle(named)
		} else {
			next.settle(granted)
		}
		e.table.mu.Unlock()
		return nil
	}
	e.busy = true
	downgrade := !over && e.mode == Exclusive
	keep := !over || next == nil && !e.contended && time.Since(e.opened) < e.table.linger
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
		delete(e.table.entries, e.id)
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
	case granted, named:
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
