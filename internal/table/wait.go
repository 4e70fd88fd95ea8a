package table

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"time"
)

// What a leader does about other processes: he lets them go first, tries, and waits.

// A process whose goroutines queue for a lock keeps it from one to the next for the time of
// a turn. Then it lets go of it, and stands back for long enough that a waiter in another
// process, who is woken by that, wins: one who unlocks and locks again at once wins
// dozens of times before the other one runs at all. When nobody comes for 20 ms it is alone, and its
// turns get longer: the scheduler, or the host of a virtual machine, keeps a thread from running for
// 10 ms and then some.
//
// One who was woken and yet lost, and that again after a grace, claims the lock. Everybody who comes
// later stands back for that, with one goroutine or many:
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
// So whoever waits is from then on passed by each of the others once at most, as long as it gets to
// run, and they are done with their turns, within patience. That is not longer as the one with the
// claim can be stopped. After that chance decides. There is a grace because the lock is idle from
// its release until one who has slept has it, and busy all the time where those who are awake take
// turns.
const (
	minTurn   = time.Millisecond
	maxTurn   = 10 * time.Millisecond
	standBack = 200 * time.Microsecond
	alone     = 16 // times that nobody came
	patience  = 2 * time.Millisecond
	grace     = 5 * time.Millisecond
)

// lock gets the kernel's lock. The caller has the token.
func (e *entry) lock(ctx context.Context, r *Request, mode Mode, try bool) error {
	if e.file == nil && !try {
		e.giveWay(ctx)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	kept := e.file != nil
	err := e.try(r, mode, true)
	if kept && err == errBusy && !try {
		// It was unlocked and not closed, so that nobody has heard of it. One of those may be
		// at the gate now, and keep us out:
		//
		//	we                        a writer
		//	hold, as a reader
		//	                          try: busy; lock the gate; wait for an event
		//	unlock, and keep the file
		//	try: busy, for the gate
		if err := e.close(); err != nil {
			return err
		}
		err = e.try(r, mode, true)
	}
	if err != errBusy || try {
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
	e.table.mu.Lock()
	e.blocked = true
	e.patrolLater()
	e.table.mu.Unlock()
	defer func() {
		e.table.mu.Lock()
		e.blocked = false
		e.table.mu.Unlock()
	}()
	if !r.ReaderPreference {
		// Whether it is passed it does not get to know.
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
	// With less time than that it would never get as far as to try.
	end, ok := ctx.Deadline()
	hurried := ok && time.Until(end) < 2*patience
	for waited := time.Duration(0); waited < patience && ctx.Err() == nil; waited += standBack {
		if waited >= least && (hurried || !e.table.system.Claimed(e.id)) {
			return
		}
		start := time.Now()
		e.table.system.Sleep(standBack)
		// Who sleeps for longer than he wanted may have missed the turn of somebody else.
		if waited < least && time.Since(start) < minTurn {
			if e.missed++; e.missed > alone {
				e.turn = min(2*e.turn, e.table.maxTurn)
			}
		}
	}
}

// try asks the kernel once, with a descriptor that it opens if there is none. One who looks gets
// errBusy only if the path names the file of this entry: behind another one it is not worth to
// wait.
func (e *entry) try(r *Request, mode Mode, look bool) error {
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
		case err == ErrAgain:
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
	if !look {
		return errBusy
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

// With each event in a row that brings nothing the echo comes later: among many who wait there is
// another event before long, and to wake up is dear. After a dozen that begins anew, and who tries
// looks at the name, too: a directory above the file may have been replaced, which makes no event.
const dozen = 12

// By how much tries are rarer where they are a backstop. To wake up for one costs a process up to
// a millisecond of its runtime's own work.
const (
	seldom = 10  // where events tell, but for programs that unlock a file and keep it open
	hardly = 100 // where the lock is held by none of these
)

// await tries until it has the lock: on each event, and after each delay.
func (e *entry) await(ctx context.Context, r *Request, mode Mode) error {
	var watch Watch = timer{}
	if e.file != nil { // or nobody has let us open it yet
		watch = e.file.Watch()
	}
	defer watch.Stop()
	// What happened between the last try and the watch has made no event here. So this
	// begins as if there had just been one:
	//
	//	holder dies                   we
	//	                              try: busy
	//	closes its files: an event
	//	                              watch; try: busy
	//	loses its lock                wait for an event
	next, delay := echo, r.Delay
	var passed time.Time // when it was, first
	vain := 0            // events in a row
	for event, claimed := false, false; ; {
		moved := event && watch.Moved()
		if err := e.try(r, mode, !event || moved || vain == dozen); err != errBusy {
			return err
		}
		if event {
			if vain++; moved || vain > dozen {
				vain = 1
			}
			next = time.Duration(vain) * echo
			if passed.IsZero() {
				passed = time.Now()
			}
		}
		if event && !claimed && time.Since(passed) >= e.table.grace && !r.ReaderPreference {
			claimed = true
			defer e.table.system.Claim(e.id)()
		}
		if mode == Exclusive && !r.ReaderPreference && e.file != nil {
			if err := e.file.Gate(false); err != nil {
				return err
			}
		}
		limit := delay
		if watch.Complete() {
			limit = seldom * delay
			if next > limit && !e.file.Quiet(mode) {
				limit = hardly * delay
			}
		}
		event = watch.Wait(ctx, jitter(min(next, limit)))
		if err := ctx.Err(); err != nil {
			return err
		}
		if !event {
			vain = 0
			if next < limit {
				next *= 32
			} else {
				delay = min(delay+r.Delay, r.MaxDelay)
			}
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

func (timer) Moved() bool    { return false }
func (timer) Complete() bool { return false }
func (timer) Stop()          {}

// jitter shortens d by up to a half. Tries at fixed times could miss for ever a lock that is
// free at fixed times.
func jitter(d time.Duration) time.Duration {
	return d - rand.N(d/2+1)
}
