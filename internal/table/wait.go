package table

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// A process whose goroutines queue for a lock hands it on among them for a time slice. Then it unlocks
// the file, and yields for long enough that a process that waits in the kernel gets the lock: one that
// unlocks and locks again at once does so dozens of times before a waiter that was woken runs at all. A
// process that has seen no other one for 20 ms is taken to be alone, and its slices get longer: the
// scheduler, or the host of a virtual machine, can keep a waiter from running for 10 ms and more.
const (
	minSlice      = time.Millisecond
	maxSlice      = 10 * time.Millisecond
	yieldTime     = 200 * time.Microsecond
	maxIdleYields = 16
)

// beginSliceLocked begins a slice, unless one has begun. For a writer it is called when others of the
// process queue; for a reader when it locks the file, as no writer of another process was waiting then:
// see join.
func (e *entry) beginSliceLocked() {
	if e.sliceEnd.IsZero() {
		e.sliceEnd = time.Now().Add(e.slice)
	}
}

// lock locks the file for the leader, or returns ErrBusy to one that tries. It reports whether it has
// waited.
func (e *entry) lock(ctx context.Context, r *Request, mode Mode, try bool) (waited bool, err error) {
	if e.mustYield && !try {
		e.yield()
	}
	if err := ctx.Err(); err != nil {
		return false, err
	}
	err = e.tryLock(r, mode)
	if err != ErrBusy || try {
		return false, err
	}
	e.slice, e.idleYields = e.table.minSlice, 0
	return true, e.wait(ctx, r, mode)
}

// yield gives other processes the time to lock the file.
func (e *entry) yield() {
	e.mustYield = false
	start := time.Now()
	e.table.system.Sleep(yieldTime)
	// After a longer sleep, another process may have come and gone.
	if time.Since(start) < minSlice {
		if e.idleYields++; e.idleYields > maxIdleYields {
			e.slice = min(2*e.slice, e.table.maxSlice)
		}
	}
}

// tryLock asks the kernel once, with a descriptor that it opens if there is none. It returns ErrBusy only
// if the path names the file of this entry: behind another one there is nothing to wait for.
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
			return ErrRetry
		case err != nil:
			return err
		case id != e.id:
			e.table.adopt(f, id)
			return ErrRetry
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
		return ErrRetry
	}
	return ErrBusy
}

// wait waits for the lock, with a wait that a recheck can end.
func (e *entry) wait(ctx context.Context, r *Request, mode Mode) error {
	interruptible, interrupt := context.WithCancelCause(ctx)
	defer interrupt(nil)
	e.table.mu.Lock()
	e.state, e.sliceEnd = waiting, time.Time{}
	e.leader = leader{r, mode, interrupt, false}
	e.refuseTriesLocked()
	e.recheck.beginLocked(e)
	e.table.mu.Unlock()

	err := e.waitInKernelOrPoll(interruptible, r, mode)

	// The lock may have been granted as ctx was done, or at the moment of an interruption. The cause of
	// interruptible is looked at first: it could be that of ctx a moment later.
	why := context.Cause(interruptible)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case why != nil:
		return why
	}
	return err
}

func (e *entry) waitInKernelOrPoll(ctx context.Context, r *Request, mode Mode) (err error) {
	released, stop := e.table.system.Watch(e.id, mode)
	defer func() { stop(err == nil) }()
	for s := (schedule{r.Options, min(time.Millisecond, r.Delay)}); ; {
		if e.file != nil { // or another process has kept it from being opened so far
			if mode == Exclusive && !r.ReaderPreference {
				if err := e.file.LockPending(); err != nil {
					return err
				}
			}
			e.setBlocked(true)
			err := e.file.Wait(ctx, mode)
			e.setBlocked(false)
			if !errors.Is(err, errors.ErrUnsupported) {
				return err
			}
		}
		// What was released before Watch has sent nothing there: so this comes before the sleep.
		if err := e.tryLock(r, mode); err != ErrBusy {
			return err
		}
		if err := s.sleep(ctx, released); err != nil {
			return err
		}
	}
}

// setBlocked notes that the leader is in the kernel, so that a recheck may use the file, or that it is
// not any more.
func (e *entry) setBlocked(blocked bool) {
	e.table.mu.Lock()
	e.leader.blocked = blocked
	e.awaitCheckLocked()
	e.table.mu.Unlock()
}

// A schedule tells when to try again. The first intervals double, from a millisecond to Delay; each later
// one is longer by Delay, up to MaxDelay. All are shortened at random, by up to a half: tries at fixed
// times could always miss a lock that is free at fixed times.
type schedule struct {
	*Options
	interval time.Duration
}

// sleep sleeps until the next try, or until the lock was released, or until ctx is done, which is an
// error.
func (s *schedule) sleep(ctx context.Context, released <-chan struct{}) error {
	t := time.NewTimer(s.interval - rand.N(s.interval/2+1))
	defer t.Stop()
	select {
	case <-released:
	case <-t.C:
		if s.interval < s.Delay {
			s.interval = min(2*s.interval, s.Delay)
		} else {
			s.interval = min(s.interval+s.Delay, s.MaxDelay)
		}
	case <-ctx.Done():
	}
	return ctx.Err()
}
