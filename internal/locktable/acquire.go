package locktable

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// maxRetries is how often acquiring starts over in a row, without a wait in between.
const maxRetries = 1000

// Acquire locks the file that r.Path names. If it returns nil, the path named the locked file
// at a moment at which the file was locked. If ctx is done first, it returns ctx.Err(), in a
// *WaitError if somebody else held the lock while it waited, and leaves nothing behind.
//
// With try it does not wait for a release: it returns ErrBusy if the lock is held, or if another
// goroutine of this process is already waiting for it.
func (t *Table) Acquire(ctx context.Context, r *Request, mode Mode, try bool) (Hold, error) {
	var e *entry
	since := never // when the caller began to wait
	for retries := 0; ; retries++ {
		if err := ctx.Err(); err != nil {
			return Hold{}, e.waitError(err, since)
		}
		var o outcome
		var w *waiter
		var err error
		e, o, w, err = t.enter(ctx, r, mode, try, retries == 0)
		if w != nil {
			w.block(ctx) // not any deeper, to keep the stack small: see there
			o, err = e.leave(ctx, w)
			retries, since = 0, min(since, w.since)
		}
		if err == nil && o == leading {
			var waited bool
			waited, err = e.lock(ctx, r, mode, try)
			if waited {
				retries, since = 0, longAgo
			}
		}
		if err == nil && o != grantedSame {
			// The path may have come to name another file at any time before. If one process
			// replaces the file under its lock, and another locks the new file, both would
			// otherwise be holders:
			//
			//	this process              others
			//	open a, which is inode 1
			//	                          lock inode 1, remove a, unlock
			//	lock inode 1
			//	                          create a, which is inode 2; lock it
			//
			// From now on, a process that replaces the file only under its lock has to wait.
			var same bool
			same, err = t.system.SameFile(r.Path, e.id)
			if !same {
				// An error of this release says nothing about the file that the path names now.
				_ = e.release("")
				err = cmp.Or(err, errReplaced)
			}
		}
		switch {
		case err == nil:
			return Hold{e}, nil
		case err == ctx.Err():
			return Hold{}, e.waitError(err, since)
		case !errors.Is(err, ErrRetry) || retries == maxRetries:
			return Hold{}, err
		case retries > maxRetries/10:
			t.system.Sleep(rand.N(200 * time.Microsecond)) // not in step with whatever changes the path
		}
	}
}

// enter finds the entry of the file, and decides what becomes of the caller. It returns a
// waiter for a caller that has to wait.
//
// With cached, it does without a look at the path if this process has released the lock by the
// same path: the path is taken to name the file that it named then, though it may name another
// one by now. The caller may become a holder or the leader all the same, as these look at the
// path again, but it does not queue on an old look: it could wait forever for a file that the
// path no longer names.
func (t *Table) enter(
	ctx context.Context, r *Request, mode Mode, try, cached bool,
) (e *entry, o outcome, w *waiter, err error) {
	t.mu.Lock()
	e = t.paths[r.Path]
	if e == nil || !cached {
		t.mu.Unlock()
		cached = false
		id, err := t.system.Identify(r.Path)
		if isNotExist(err) {
			e, err = t.create(ctx, r, mode)
			return e, leading, nil, err
		}
		if err != nil {
			return nil, queued, nil, err
		}
		t.mu.Lock()
		e = t.entryLocked(id)
	}
	joins := false
	switch {
	case e.state == idle:
		e.leadLocked()
		o = leading
	case e.state == held && e.mode == Shared && mode == Shared && e.queue.head == nil:
		e.holders++
		o, joins = granted, !e.slice.lastsLocked()
	case cached && (try || r.Path != e.path || time.Since(e.releasedAt) > maxPathAge):
		err = errReplaced // or so it may be
	case !try:
		w = e.enqueueLocked(r, mode)
	// While the leader is locking, a try waits for the answer of the kernel: if the lock is
	// free, two readers that try at the same time must both succeed.
	case e.state == locking:
		w = e.awaitSettlementLocked()
	default:
		err = ErrBusy
	}
	t.mu.Unlock()
	if joins {
		o, w, err = e.join(r, try, cached)
	}
	return e, o, w, err
}

// maxPathAge is for how long another goroutine's look at a path is recent enough to queue on.
const maxPathAge = time.Millisecond

// join is called by a reader that has become a holder after the end of the holders' time slice.
// Readers of one process that overlap could hold the lock forever, so from time to time one
// checks whether a writer of another process waits for them. If so, the new reader queues.
func (e *entry) join(r *Request, try, cached bool) (outcome, *waiter, error) {
	t := e.table
	pending, err := e.file.Pending() // the file stays open, as the caller is a holder
	t.mu.Lock()
	switch {
	case err == nil && !pending:
		e.slice.renewLocked(t.sliceLength)
		t.mu.Unlock()
		return granted, nil, nil
	case err == nil && !try && !cached && e.holders > 1:
		e.holders--
		w := e.enqueueLocked(r, Shared)
		t.mu.Unlock()
		return queued, w, nil
	}
	t.mu.Unlock()
	_ = e.release("")
	switch {
	case err != nil:
	case try:
		err = ErrBusy
	default:
		err = errPending
	}
	return queued, nil, err
}

// leave is called by a goroutine whose wait in the queue is over, or that gives it up since ctx
// is done. In that case it gives back what it has been granted at the last moment.
func (e *entry) leave(ctx context.Context, w *waiter) (outcome, error) {
	t := e.table
	if err := ctx.Err(); err != nil { // even if w is resolved, too
		t.mu.Lock()
		o := w.outcome
		if o == queued {
			e.queue.remove(w)
		}
		t.mu.Unlock()
		switch o {
		case queued:
			e.admitReaders() // that wait only for w, a writer
		case granted, grantedSame:
			_ = e.release("")
		case leading:
			_ = e.stepDown(true)
		}
		return queued, err
	}
	switch w.outcome {
	case leading:
	case stale:
		return queued, errReplaced
	case settled:
		return queued, errSettled
	default:
		return w.outcome, nil
	}

	// It leads, but may have looked at its path long ago. After a replacement of the file,
	// every goroutine of the queue gets here. If each of them opened the new file to find out,
	// there would be as many descriptors, none of which may be closed while the new file is
	// locked.
	same, err := t.system.SameFile(w.request.Path, e.id)
	if !same || err != nil {
		_ = e.unlockAndStepDown(false)
		return queued, cmp.Or(err, errReplaced)
	}
	return leading, nil
}

// lock locks the file for the caller, which leads, and becomes a holder. It returns ErrBusy to
// a try. The leadership ends in any case. It reports whether the caller has waited for another
// process.
func (e *entry) lock(ctx context.Context, r *Request, mode Mode, try bool) (waited bool, err error) {
	if e.slice.mustYield && !try {
		e.slice.yield(e.table.system)
	}
	err = ctx.Err()
	if err == nil {
		err = e.tryLock(r, mode)
	}
	if err == ErrBusy && !try {
		waited = true
		err = e.wait(ctx, r, mode)
	}
	if err != nil {
		// After most errors nobody knows whether the file is locked: closing it unlocks it.
		_ = e.unlockAndStepDown(err == ErrBusy || ctx.Err() != nil)
		return waited, err
	}
	e.table.mu.Lock()
	e.holdLocked(mode)
	if mode == Shared || e.queue.head != nil {
		e.slice.beginLocked(e.table.sliceLength)
	}
	e.table.mu.Unlock()
	return waited, nil
}
