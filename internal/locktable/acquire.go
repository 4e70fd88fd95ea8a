package locktable

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// maxRetries is how often acquiring starts over in a row, without a wait in between.
const maxRetries = 1000

// Acquire locks the file that r.Path names. If it returns nil, the path named the locked file at a moment
// at which the file was locked. If ctx is done first, it returns ctx.Err(), in a *WaitError if it has waited,
// and leaves nothing behind.
//
// With try it does not wait for a release: it returns ErrBusy if the lock is held, or if another
// goroutine of this process is already waiting for it.
func (t *Table) Acquire(ctx context.Context, r *Request, mode Mode, try bool) (Hold, error) {
	waited := false
	for retries := 0; ; retries++ {
		if err := ctx.Err(); err != nil {
			if waited {
				err = &WaitError{Err: err}
			}
			return Hold{}, err
		}
		e, w, err := t.attempt(ctx, r, mode, try, retries == 0)
		if w != nil {
			w.block(ctx) // not any deeper, to keep the stack small: see there
			if err = e.finish(ctx, w); err != nil && err == ctx.Err() {
				err = e.waitError(err) // it has waited, though not as the leader
			}
			retries, waited = 0, true
		}
		if err == nil {
			return Hold{e}, nil
		}
		if !errors.Is(err, ErrRetry) {
			return Hold{}, err
		}
		if err == errLateChange {
			retries, waited = 0, true
		}
		if retries == maxRetries {
			return Hold{}, err
		}
		if retries > maxRetries/10 {
			t.system.Sleep(rand.N(200 * time.Microsecond)) // not in step with whatever changes the path
		}
	}
}

// attempt acquires the lock, or puts the caller in the queue and returns its waiter for finish. With
// cached, it does without a look at the path if this process has released the lock by the same path: the
// path is taken to name the file that it named then.
func (t *Table) attempt(ctx context.Context, r *Request, mode Mode, try, cached bool) (*entry, *waiter, error) {
	t.mu.Lock()
	e := t.paths[r.Path]
	if e == nil || !cached {
		t.mu.Unlock()
		cached = false
		id, err := t.system.Identify(r.Path)
		if isNotExist(err) {
			err = t.create(ctx, r, mode)
		}
		if err != nil {
			return nil, nil, err
		}
		t.mu.Lock()
		e = t.entryLocked(id)
	}
	o, w := e.enterLocked(r, mode, try, cached)
	t.mu.Unlock()
	var err error
	switch o {
	case leading:
		err = e.lead(ctx, r, mode, try)
	case granted:
		err = e.verify(r)
	case joining:
		w, err = e.join(r, try, cached)
	case refused:
		err = ErrBusy
	case stale:
		err = errOldLook
	}
	return e, w, err
}

// enterLocked decides what becomes of a goroutine that arrives. It returns a waiter if that is queued.
//
// With cached, the path may name another file by now. The goroutine may become a holder or the leader all
// the same, as these look at the path again, but it does not queue on an old look: it could wait forever
// for a file that the path no longer names.
func (e *entry) enterLocked(r *Request, mode Mode, try, cached bool) (outcome, *waiter) {
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
	case cached && (try || r.Path != e.path || time.Since(e.releasedAt) > maxPathAge):
		return stale, nil
	// While the leader is locking, a try waits for the answer of the kernel: if the lock is free, two
	// readers that try at the same time must both succeed.
	case try && e.state != locking:
		return refused, nil
	}
	return queued, e.enqueueLocked(r, mode, try)
}

// maxPathAge is for how long another goroutine's look at a path is recent enough to queue on.
const maxPathAge = time.Millisecond

func (e *entry) enqueueLocked(r *Request, mode Mode, try bool) *waiter {
	if e.queue.head == nil {
		e.recheck.beginLocked(e)
		if e.state == held && e.mode == Exclusive {
			e.beginSliceLocked()
		}
	}
	return e.queue.push(r, mode, try)
}

// join is called by a reader that has become a holder after the end of the holders' time slice. Readers of
// one process that overlap could hold the lock forever, so from time to time one checks whether a writer
// of another process waits for them. If so, the new reader queues.
func (e *entry) join(r *Request, try, cached bool) (*waiter, error) {
	t := e.table
	pending, err := e.file.Pending() // the file stays open, as the caller is a holder
	t.mu.Lock()
	if err == nil && !pending {
		e.sliceEnd = time.Now().Add(t.minSlice)
		t.mu.Unlock()
		return nil, e.verify(r)
	}
	if err == nil && !try && !cached && e.holders > 1 {
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
	return nil, errPending
}

// finish acquires the lock for a goroutine whose wait in the queue is over.
func (e *entry) finish(ctx context.Context, w *waiter) error {
	if err := ctx.Err(); err != nil {
		return e.cancel(w, err) // even if w is resolved, too
	}
	switch w.outcome {
	case granted:
		return e.verify(w.request)
	case grantedSame:
		return nil
	case refused:
		return ErrBusy
	case stale:
		return errReplaced
	}

	// It leads, but may have looked at its path long ago. After a replacement of the file, every goroutine
	// of the queue gets here. If each of them opened the new file to find out, there would be as many
	// descriptors, none of which may be closed while the new file is locked.
	same, err := e.table.system.SameFile(w.request.Path, e.id)
	if !same || err != nil {
		if err == nil {
			err = errReplaced
		}
		_ = e.unlockAndStepDown(false)
		return err
	}
	return e.lead(ctx, w.request, w.mode, w.try)
}

// cancel is called by a goroutine that gives up its wait, and returns the error for that. What it has been
// granted at the last moment, it gives back.
func (e *entry) cancel(w *waiter, err error) *WaitError {
	waitErr := &WaitError{ID: e.id, Err: err}
	e.table.mu.Lock()
	o := w.outcome
	if o == queued {
		e.queue.remove(w)
		e.admitReadersLocked() // that wait only for w, a writer
	}
	if o == queued || o == leading {
		waitErr = e.waitErrorLocked(err)
	}
	e.table.mu.Unlock()
	switch o {
	case granted, grantedSame:
		_ = e.release("")
	case leading:
		_ = e.stepDown(true)
	}
	return waitErr
}

// lead locks the file for the caller, which leads, or returns ErrBusy to a try. The leadership ends in any
// case.
func (e *entry) lead(ctx context.Context, r *Request, mode Mode, try bool) error {
	if e.mustYield && !try {
		e.yield()
	}
	waited, err := false, ctx.Err()
	if err == nil {
		err = e.tryLock(r, mode)
	}
	if err == ErrBusy && !try {
		waited = true
		e.slice, e.idleYields = e.table.minSlice, 0
		err = e.wait(ctx, r, mode)
	}
	if err != nil {
		// After most errors nobody knows whether the file is locked: closing it unlocks it.
		_ = e.unlockAndStepDown(err == ErrBusy || ctx.Err() != nil)
		return err
	}
	e.table.mu.Lock()
	e.becomeHeldLocked(mode)
	if mode == Shared || e.queue.head != nil {
		e.beginSliceLocked()
	}
	e.table.mu.Unlock()
	if err = e.verify(r); err == errReplaced && waited {
		return errLateChange
	}
	return err
}

// tryLock asks the kernel once, through a descriptor that it opens if there is none. It returns ErrBusy
// only if the path names the file of this entry: otherwise there is nothing to wait for.
func (e *entry) tryLock(r *Request, mode Mode) error {
	if e.file != nil && !e.file.Permits(mode) {
		if err := e.close(); err != nil {
			return err
		}
	}
	if e.file == nil {
		f, id, err := e.table.system.Open(r.Path, mode)
		switch {
		case isNotExist(err):
			return errRemoved
		case err != nil:
			return err
		case id != e.id:
			e.table.adopt(f, id)
			return errReplaced
		}
		e.file = f
	}
	ok, err := e.file.TryLock(mode)
	if ok || err != nil {
		return err
	}
	same, err := e.table.system.SameFile(r.Path, e.id)
	switch {
	case err != nil:
		return err
	case !same:
		return errReplaced
	}
	return ErrBusy
}

// verify makes sure, for a new holder, that its path names the locked file, and releases the lock if not.
// The path may have come to name another file at any time before. If one process replaces the file under
// its lock, and another locks the new file, both would otherwise be holders:
//
//	this process              others
//	open a, which is inode 1
//	                          lock inode 1, remove a, unlock
//	lock inode 1
//	                          create a, which is inode 2; lock it
//
// From now on, a process that replaces the file only under its lock has to wait.
func (e *entry) verify(r *Request) error {
	same, err := e.table.system.SameFile(r.Path, e.id)
	if same {
		return nil
	}
	// An error of this release says nothing about the file that the path names now.
	_ = e.release("")
	if err == nil {
		err = errReplaced
	}
	return err
}
