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
// It is in one of three states, of which admit is the only way in:
//
//	idle     nobody holds the lock or has the token. The entry is in the table
//	         only as long as a descriptor is open.
//	led      one goroutine has the token (busy), all others queue.
//	held     nobody has the token, holders have the lock.
type entry struct {
	table *Table
	id    ID

	// table.mu protects these.
	queue   queue
	busy    bool // somebody has the token
	waiting bool // and has found the lock held by another process
	holders int
	mode    Mode   // of the lock, while holders > 0
	strays  []File // descriptors to close when the lock is free
	expiry  *time.Timer
	armed   bool // expiry will come

	// These belong to whoever has the token, and table.mu protects them while
	// nobody does.
	file      File
	opened    time.Time // when file was
	contended bool      // somebody else wanted the lock since then
}

// outcome is what has become of a wish for the lock.
type outcome uint8

const (
	queued  outcome = iota
	granted         // the lock is held
	leading         // the token is had
	refused         // a try has failed
)

// idle reports whether the entry is of no use to anybody. table.mu is held.
func (e *entry) idle() bool { return !e.busy && e.holders == 0 }

// decided reports whether it is known that who came now would have to wait.
// When it is not, a try waits to know: a system call is under way that may
// well bring the lock, and two readers that try at the same time must both
// succeed if nobody writes. table.mu is held.
func (e *entry) decided() bool { return !e.busy || e.waiting }

// admit lets the caller in if nobody has to be waited for. table.mu is held.
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

// lead locks the file for the caller, who has the token, and gives up the
// token in any case.
func (e *entry) lead(ctx context.Context, r *Request, mode Mode, try bool) error {
	err := e.lock(ctx, r, mode, try)
	if err != nil {
		e.stepDown()
		return err
	}
	e.table.mu.Lock()
	defer e.table.mu.Unlock()
	e.busy, e.waiting = false, false
	e.holders, e.mode = 1, mode
	r.last = e.id
	e.grantReaders()
	e.refuseTries()
	return nil
}

// lock gets the kernel's lock. The caller has the token.
func (e *entry) lock(ctx context.Context, r *Request, mode Mode, try bool) error {
	if err := ctx.Err(); err != nil {
		return err // it was done when we got the token
	}
	if err := e.try(r, mode); err != errBusy || try {
		return err
	}

	e.contended = true
	e.table.mu.Lock()
	e.waiting = true
	e.refuseTries()
	e.table.mu.Unlock()

	if ctx.Done() == nil {
		ok, err := e.file.Wait(mode)
		if ok || err != nil {
			return err
		}
	}
	return e.await(ctx, r, mode)
}

// try asks the kernel once, with a descriptor that it opens if there is none.
// It returns errBusy only if the path names the file of this entry: behind
// another one it is not worth to wait.
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

// echo is when to try again after an event that brought nothing: a process that dies
// closes its files first and loses its locks a moment later.
const echo = time.Millisecond

// await tries until it has the lock: on each event, and after each delay.
func (e *entry) await(ctx context.Context, r *Request, mode Mode) error {
	events, stop := e.file.Watch()
	defer stop()
	// What happened between the last try and the watch has made no event here. So this
	// begins as if there had just been one:
	//
	//	holder dies                   we
	//	                              try: busy
	//	closes its files: an event
	//	                              watch; try: busy
	//	loses its lock                wait for an event
	timer := time.NewTimer(0)
	defer timer.Stop()
	next, delay := echo, r.Delay
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-events:
			next = echo
		case <-timer.C:
		}
		if err := ctx.Err(); err != nil {
			return err // select takes any case that is ready
		}
		if err := e.try(r, mode); err != errBusy {
			return err
		}
		timer.Reset(jitter(min(next, delay)))
		if next < delay {
			next *= 2
		} else {
			delay = min(delay+r.Delay, r.MaxDelay)
		}
	}
}

// jitter shortens d by up to a half. Tries at fixed times could miss for ever a
// lock that is free at fixed times.
func jitter(d time.Duration) time.Duration {
	return d - rand.N(d/2+1)
}

// release gives one hold back, and with the last one the kernel's lock.
func (e *entry) release() error {
	e.table.mu.Lock()
	e.holders--
	if e.holders > 0 {
		e.table.mu.Unlock()
		return nil
	}
	e.busy = true
	keep := !e.contended && e.queue.front() == nil && time.Since(e.opened) < e.table.linger
	e.table.mu.Unlock()

	// Unlock before close: a child of this process that is between fork and
	// exec has the descriptor too, and with it would keep the lock.
	err := e.file.Unlock()
	if err != nil {
		keep = false
	}
	if closeErr := e.settle(keep); err == nil {
		err = closeErr
	}
	return err
}

// stepDown is for a leader without the lock.
func (e *entry) stepDown() {
	if e.file != nil {
		// What a failed try has left, and a lock whose state is not known
		// after an error. Nothing can be done about an error here.
		_ = e.file.Unlock()
	}
	_ = e.settle(false)
}

// settle gives the token up, to the next in the queue if there is one. The
// kernel's lock is free. It closes what is open, but for the descriptor of the
// entry if keep says so.
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
			err = e.close()
		}
		e.table.mu.Lock()
	}

	e.waiting = false
	if w := e.queue.pop(); w != nil {
		w.settle(leading)
		return err
	}
	e.busy = false
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

// expireLater makes sure that the descriptor of an idle entry is closed.
// table.mu is held.
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

// expire closes the descriptor of an entry that is idle. In one that is not it
// has been open for long enough that release will close it; and an entry with
// none has left the table, where another one may have its place.
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

// leave is for a goroutine that does not want to queue any longer. What it was
// given at the last moment it passes on.
func (e *entry) leave(w *waiter, err error) error {
	e.table.mu.Lock()
	switch w.state {
	case queued:
		e.queue.remove(w)
		e.grantReaders() // that waited for w, a writer, only
		e.table.mu.Unlock()
	case granted:
		e.table.mu.Unlock()
		_ = e.release()
	case leading:
		e.table.mu.Unlock()
		e.stepDown()
	}
	return err
}

// grantReaders lets in the readers at the head of the queue while the lock is
// held shared. table.mu is held.
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

// refuseTries fails those who do not want to wait, now that they would have
// to. table.mu is held.
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
