package locktable

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// A leader is what others know of the leader while it waits.
type leader struct {
	request   *Request
	mode      Mode
	interrupt context.CancelCauseFunc // ends the wait, which returns the cause
	since     time.Duration           // since start
	blocked   bool                    // in the kernel
}

// wait waits until it has locked the file, for a leader that has found it locked. A recheck can
// interrupt the wait.
func (e *entry) wait(ctx context.Context, r *Request, mode Mode) error {
	interruptible, interrupt := context.WithCancelCause(ctx)
	defer interrupt(nil)
	e.table.mu.Lock()
	e.startWaitLocked(leader{r, mode, interrupt, time.Since(start), false})
	e.recheck.beginLocked(e)
	e.table.mu.Unlock()

	err := e.blockOrPoll(interruptible, r, mode)

	e.table.mu.Lock()
	e.heldUntil = time.Since(start)
	e.table.mu.Unlock()

	// The kernel may have granted the lock as ctx was done, or as the wait was interrupted.
	// That counts: to give it back could drop what others hold through the same open file
	// description. Otherwise the cause is read first: a moment later ctx could be done, and be
	// taken for the cause.
	cause := context.Cause(interruptible)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case cause != nil:
		return cause
	}
	return err
}

// blockOrPoll blocks in the kernel if it can, and polls otherwise. It tries to block each time:
// there may be a thread for it now.
func (e *entry) blockOrPoll(ctx context.Context, r *Request, mode Mode) (err error) {
	released, stop := e.table.system.Watch(e.id, mode)
	defer func() { stop(err == nil) }()
	for s := (schedule{r.Options, min(time.Millisecond, r.Delay)}); ; {
		if e.file != nil { // it is nil as long as another process keeps the file from being opened
			if mode == Exclusive && !r.ReaderPreference {
				if err := e.file.LockPending(); err != nil {
					return err
				}
			}
			if err := e.block(ctx, mode); !errors.Is(err, errors.ErrUnsupported) {
				return err
			}
		}
		// This comes before the sleep: nothing reports a release that happened before Watch.
		if err := e.tryLock(r, mode); err != ErrBusy {
			return err
		}
		e.askHolder(recentHolder)
		if err := s.sleep(ctx, released); err != nil {
			return err
		}
	}
}

// block blocks in the kernel. While it does, a recheck may use the file. Those that give up
// meanwhile, and the caller if ctx is done, tell who holds the lock: see waitError.
func (e *entry) block(ctx context.Context, mode Mode) error {
	if !e.file.CanWait() {
		return errors.ErrUnsupported
	}
	t := e.table
	e.askHolder(0)
	t.mu.Lock()
	e.leader.blocked = true
	t.mu.Unlock()

	err := e.file.Wait(ctx, mode)

	t.mu.Lock()
	e.leader.blocked = false
	if mode == Shared {
		e.left = time.Since(start)
	}
	check := t.checking[e] // no other begins
	t.mu.Unlock()
	if check != nil {
		<-check
	}
	if ctx.Err() != nil {
		e.askHolder(0)
	}
	return err
}

// A schedule tells a leader that polls when to try again. The first intervals double, from a
// millisecond to Delay; each later one is longer by Delay, up to MaxDelay. Each is shortened at
// random, by up to a half: tries at fixed times could always miss a lock that is free at fixed
// times.
type schedule struct {
	*Options
	interval time.Duration
}

// sleep sleeps until the next try, or until released receives. It returns an error if ctx is
// done first.
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
