package lockertest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
)

var errCause = errors.New("cause of the test")

// testContext checks what the context of an acquire does, in every state.
func (s *suite) testContext(t *testing.T) {
	s.forEachWay(t, "Done", s.testDone, isAny)
	s.forEachWay(t, "Waiting", s.testDoneWhileWaiting, isAny)
	s.forEachWay(t, "WriterGivesUp", s.testWriterGivesUp, isShared)
	s.forEachWay(t, "CancelMeetsGrant", s.testCancelMeetsGrant, isAny)
	s.forEachWay(t, "DoneWhileHeld", s.testDoneWhileHeld, isAny)
	s.forEachWay(t, "FailedAcquire", s.testFailedAcquire, isAny)
}

// An ending is a way in which a context ends.
type ending struct {
	name string
	// start returns a context, and what ends it, or waits until it has ended.
	start   func() (context.Context, func())
	targets []error // that the error must wrap
}

// endings returns the ways in which a context ends. Deadlines are that far away.
func endings(deadline time.Duration) []ending {
	return []ending{
		{"canceled", func() (context.Context, func()) {
			ctx, cancel := context.WithCancel(context.Background())
			return ctx, cancel
		}, []error{context.Canceled}},
		{"canceled with a cause", func() (context.Context, func()) {
			ctx, cancel := context.WithCancelCause(context.Background())
			return ctx, func() { cancel(errCause) }
		}, []error{context.Canceled, errCause}},
		{"deadline", func() (context.Context, func()) {
			ctx, cancel := context.WithTimeout(context.Background(), deadline)
			return ctx, func() { <-ctx.Done(); cancel() }
		}, []error{context.DeadlineExceeded}},
		{"deadline with a cause", func() (context.Context, func()) {
			ctx, cancel := context.WithTimeoutCause(context.Background(), deadline, errCause)
			return ctx, func() { <-ctx.Done(); cancel() }
		}, []error{context.DeadlineExceeded, errCause}},
	}
}

// testDone checks that a context that is done wins over a free lock, always.
func (s *suite) testDone(t *testing.T, w way) {
	name := lockName(t)
	a, other := s.open(t, name, w), s.open(t, name, w.exclusive())
	for range 10 {
		for _, e := range endings(-time.Second) {
			ctx, end := e.start()
			end()
			c := a.start(ctx)
			a.mustFail(t, c, e.targets...)
			called := false
			err := a.with(ctx, a.lock, func(context.Context) error { called = true; return nil })
			checkError(t, err, "acquire", e.targets...)
			if called {
				t.Fatalf("%s: the function was called", e.name)
			}
		}
		other.mustBeFree(t)
		checkError(t, a.release(a.lock), "release", fasteners.ErrNotAcquired)
	}
}

// testDoneWhileWaiting checks that a wait ends when its context does, for a waiter that uses the
// lock value of the holder, and one that has its own. It does not get the lock later, and those
// that wait before it and behind it do, but not by that. The one behind acquires the lock in all
// ways, through a value of its own, and those of the others.
func (s *suite) testDoneWhileWaiting(t *testing.T, w way) {
	name := lockName(t)
	holders := []access{s.open(t, name, w.exclusive())}
	if w.rw && !w.shared { // a reader can be in the way as well
		holders = append(holders, holders[0].as(acquireRead))
	}
	own, rival := s.open(t, name, w), s.open(t, name, w.exclusive())
	var behind []access
	for _, o := range s.beside(w) {
		behind = append(behind, s.open(t, name, o))
		if o.rw == w.rw {
			behind = append(behind, own.as(o), holders[0].as(o))
		}
	}
	var n int
	for _, waiter := range []access{holders[0].as(w), own} {
		for _, e := range endings(brief / 2) {
			holder, third := holders[(n+n/2)%len(holders)], behind[n%len(behind)]
			n++
			h := holder.mustAcquire(t)
			var before <-chan error
			if third.excludes(holder.way) && n%2 == 0 {
				before = holders[0].pass()
			}
			ctx, end := e.start()
			c := waitFor(brief/4, waiter.start(ctx))
			b := waitFor(brief/4, third.start(context.Background()))
			end()
			waiter.mustFail(t, c, e.targets...)
			var inside *holding
			if third.excludes(holder.way) {
				third.stillWaits(t, b)
			} else {
				// Only the waiter that has left can have been in its way.
				inside = third.mustGetAs(t, b, "behind a writer that gave up")
			}
			if h.ctx != nil && h.ctx.Err() != nil {
				t.Errorf("%s: a waiter gave up, and the context of the holder is done", e.name)
			}
			mustRelease(t, h)
			if inside == nil {
				inside = third.mustGetAs(t, b, "behind a waiter that gave up")
			}
			if n%2 == 1 {
				rival.mustBeHeld(t)
			}
			mustRelease(t, inside)
			if before != nil {
				if err := receive(t, before, "a waiter before one that gave up"); err != nil {
					t.Fatalf("a waiter before one that gave up: %v", err)
				}
			}
			checkError(t, waiter.release(waiter.lock), "release", fasteners.ErrNotAcquired)
			rival.mustBeFree(t)
		}
	}
}

// testWriterGivesUp checks that a writer that gives up among readers leaves nothing behind: those
// that hold the lock go on, those that wait behind it get in, and so do new ones.
func (s *suite) testWriterGivesUp(t *testing.T, w way) {
	name := lockName(t)
	readers := []access{s.open(t, name, w), s.open(t, name, w), s.open(t, name, w)}
	one, two, three := readers[0], readers[1], readers[2]
	other := s.open(t, name, w.exclusive())
	writers := []access{one.as(w.exclusive()), other, three.as(w.exclusive()), other}
	if s.NewLock != nil && !s.Separate {
		writers[3] = s.open(t, name, acquire)
	}
	for i, e := range endings(brief) {
		writer := writers[i]
		inside := []*holding{one.mustAcquire(t), two.mustAcquire(t)}
		ctx, end := e.start()
		c := waitFor(brief/2, writer.start(ctx))
		var behind []<-chan result
		for _, r := range readers { // some locks let them pass the writer, and some do not
			behind = append(behind, r.start(context.Background()))
		}
		time.Sleep(brief / 4)
		end()
		writer.mustFail(t, c, e.targets...)
		for i, r := range readers {
			inside = append(inside, r.mustGetAs(t, behind[i], "behind a writer that gave up"))
		}
		for _, r := range append(readers, s.open(t, name, w)) {
			inside = append(inside, r.mustGetAs(t, r.start(context.Background()),
				"beside readers, after a writer gave up"))
			// Of a waiter that gives up, something may be left for a moment, but not for long.
			for start := time.Now(); ; time.Sleep(brief / 8) {
				ok, err, there := r.as(acquireRead).tryOnce(t, context.Background())
				must(t, err)
				if ok {
					must(t, acquireRead.release(r.lock))
				}
				if ok || !there {
					break
				}
				if time.Since(start) > patience {
					t.Fatalf("readers hold the lock, a writer has given up, and Try%s fails for %v",
						acquireRead.name, patience)
				}
			}
		}
		for _, h := range inside {
			if h.ctx != nil && h.ctx.Err() != nil {
				t.Errorf("%s: a writer gave up, and the context of a reader is done", e.name)
			}
		}
		checkError(t, writer.release(writer.lock), "release", fasteners.ErrNotAcquired)
		other.mustBeHeld(t)
		inside[0], inside[i%2] = inside[i%2], inside[0]
		for _, h := range inside[1:] {
			mustRelease(t, h)
		}
		other.mustBeHeld(t) // by one that has held it since before
		mustRelease(t, inside[0])
		other.mustBeFree(t)
	}
	// If another writer waits, too, it still keeps readers out, and gets the lock.
	for _, writer := range writers {
		h := one.mustAcquire(t)
		ctx, cancel := context.WithCancel(context.Background())
		c := waitFor(brief/4, writer.start(ctx))
		next := waitFor(brief/4, other.start(context.Background()))
		behind := three.pass()
		time.Sleep(brief / 4)
		cancel()
		writer.mustFail(t, c, context.Canceled)
		other.stillWaits(t, next)
		mustRelease(t, h)
		h = other.mustGetAs(t, next, "behind a writer that gave up")
		two.mustBeHeld(t)
		mustRelease(t, h)
		must(t, receive(t, behind, "a reader behind two writers, one of which gave up,"))
	}
	other.mustBeFree(t)
}

// testTry checks the method that does not wait, if the lock has it.
func (s *suite) testTry(t *testing.T, w way) {
	name := lockName(t)
	a, other := s.open(t, name, w), s.open(t, name, w.exclusive())
	try, withContext := a.try()
	if try == nil {
		return // no lock has to have it
	}
	check := func(when string, want bool) {
		t.Helper()
		if ok, err, _ := a.tryOnce(t, t.Context()); ok != want || err != nil {
			t.Fatalf("Try%s of a lock that %s returned %t and the error %v", w.name, when, ok, err)
		}
	}
	// This comes first: of a waiter that gives up, something may be left for a moment.
	check("nobody holds", true)
	if w.shared {
		check("a reader holds", true)
		must(t, a.way.release(a.lock))
	}
	other.mustBeHeld(t)
	must(t, a.way.release(a.lock))
	for _, holder := range []access{other, a.as(w.exclusive())} {
		h := holder.mustAcquire(t)
		check("somebody else holds", false)
		h.mustGoOn(t, other)
		mustRelease(t, h)
	}
	for _, e := range endings(-time.Second) {
		if !withContext {
			break
		}
		ctx, end := e.start()
		end()
		ok, err, _ := a.tryOnce(t, ctx)
		if ok {
			t.Errorf("%s: Try%s has acquired the lock", e.name, w.name)
		}
		checkError(t, err, "acquire", e.targets...)
	}
	checkError(t, a.way.release(a.lock), "release", fasteners.ErrNotAcquired)
	other.mustBeFree(t)
}

// testDoneWhileHeld checks that the end of the context that a lock was acquired with does not
// release it. It ends the context of the hold.
func (s *suite) testDoneWhileHeld(t *testing.T, w way) {
	name := lockName(t)
	a, other := s.open(t, name, w), s.open(t, name, w.exclusive())
	for i, e := range endings(0) {
		var end func()
		var h *holding
		for deadline := brief / 2; h == nil; deadline *= 2 { // it can be over before the lock is acquired
			var ctx context.Context
			ctx, end = endings(deadline)[i].start()
			r := receive(t, a.start(ctx), w.name)
			if r.err == nil {
				h = r.holding
			} else if ctx.Err() == nil || deadline > patience {
				t.Fatal(r.err)
			}
		}
		c := other.start(context.Background())
		end()
		if h.ctx != nil {
			receive(t, h.ctx.Done(), "the context of the hold, when that it was acquired with has ended,")
			for _, target := range e.targets {
				err := fmt.Errorf("%w: %w", h.ctx.Err(), context.Cause(h.ctx))
				if !errors.Is(err, target) {
					t.Errorf("%s: the context of the hold has the error %q, want %q", e.name, err, target)
				}
			}
		}
		other.stillWaits(t, c)
		mustRelease(t, h)
		mustRelease(t, other.mustGet(t, c))
	}
}

// waitFor waits until an acquire ends, or the time is over. Its result is in the channel that it
// returns.
func waitFor(d time.Duration, c <-chan result) <-chan result {
	select {
	case r := <-c:
		return resultOf(r)
	case <-time.After(d):
		return c
	}
}

func resultOf(r result) <-chan result {
	c := make(chan result, 1)
	c <- r
	return c
}
