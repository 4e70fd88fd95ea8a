package lockertest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
)

var errCause = errors.New("cause of the test")

// testContext checks what the context of an acquire does, in every state.
func (s *suite) testContext(t *testing.T) {
	s.forEachWay(t, "Done", s.testDone, isAny)
	s.forEachWay(t, "Waiting", s.testDoneWhileWaiting, isAny)
	s.forEachWay(t, "GaveUp", s.testGaveUp, isAny)
	s.forEachWay(t, "CancelMeetsGrant", s.testCancelMeetsGrant, isAny)
	s.forEachWay(t, "DoneWhileHeld", s.testDoneWhileHeld, isAny)
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
// lock value of the holder, and one that has its own.
func (s *suite) testDoneWhileWaiting(t *testing.T, w way) {
	name := lockName(t)
	holder := s.open(t, name, w.exclusive())
	for _, waiter := range []access{holder.as(w), s.open(t, name, w)} {
		for _, e := range endings(brief / 2) {
			h := holder.mustAcquire(t)
			ctx, end := e.start()
			c := waiter.start(ctx)
			c = waitBriefly(c)
			end()
			waiter.mustFail(t, c, e.targets...)
			if h.ctx != nil && h.ctx.Err() != nil {
				t.Errorf("%s: a waiter gave up, and the context of the holder is done", e.name)
			}
			mustRelease(t, h)
		}
		holder.mustBeFree(t)
	}
}

// testTry checks the method that does not wait, if the lock has it.
func (s *suite) testTry(t *testing.T, w way) {
	name := lockName(t)
	a, other := s.open(t, name, w), s.open(t, name, w.exclusive())
	try, withContext := a.try()
	if try == nil {
		return // no lock has to have it
	}
	start := func(ctx context.Context) (acquired bool, err error) {
		t.Helper()
		c := make(chan error, 1)
		go func() {
			ok, err := try(ctx)
			acquired = ok
			c <- err
		}()
		err = receive(t, c, "Try"+w.name)
		return acquired, err
	}
	check := func(when string, want bool) {
		t.Helper()
		if ok, err := start(t.Context()); ok != want || err != nil {
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
		ok, err := start(ctx)
		if ok {
			t.Errorf("%s: Try%s has acquired the lock", e.name, w.name)
		}
		checkError(t, err, "acquire", e.targets...)
	}
	checkError(t, a.way.release(a.lock), "release", fasteners.ErrNotAcquired)
	other.mustBeFree(t)
}

// testGaveUp checks that a waiter that has given up does not get the lock later, and that those
// that wait before it and after it do.
func (s *suite) testGaveUp(t *testing.T, w way) {
	name := lockName(t)
	holder, own := s.open(t, name, w.exclusive()), s.open(t, name, w)
	for _, waiter := range []access{own, holder.as(w)} {
		h := holder.mustAcquire(t)
		before := holder.startWaiting(t, t.Context())
		ctx, cancel := context.WithCancel(context.Background())
		c := waiter.startWaiting(t, ctx)
		after := holder.startWaiting(t, t.Context())
		cancel()
		waiter.mustFail(t, c, context.Canceled)
		mustRelease(t, h)
		// If the lock were given to the waiter that has left, these would not get it.
		for range 2 {
			var r result
			select {
			case r = <-before:
			case r = <-after:
			case <-time.After(patience):
				t.Fatal("a waiter gave up, and those before it and after it do not get the lock")
			}
			mustRelease(t, holder.mustGet(t, resultOf(r)))
		}
		waitBriefly(after) // for a grant that comes late
		checkError(t, waiter.release(waiter.lock), "release", fasteners.ErrNotAcquired)
		holder.mustBeFree(t)
	}
}

// testCancelMeetsGrant cancels waits at about the time at which the lock is granted. Either the
// waiter has the lock, or nobody has.
func (s *suite) testCancelMeetsGrant(t *testing.T, w way) {
	name := lockName(t)
	holder, own := s.open(t, name, w.exclusive()), s.open(t, name, w)

	// The times are drawn from twice what a grant takes after a release.
	h := holder.mustAcquire(t)
	c := own.startWaiting(t, t.Context())
	start := time.Now()
	mustRelease(t, h)
	mustRelease(t, own.mustGet(t, c))
	longest := min(2*time.Since(start)+time.Millisecond, 20*brief)

	granted, rounds := 0, rounds(40)
	for i := range rounds {
		waiter := own
		if i%2 == 0 {
			waiter = holder.as(w)
		}
		h := holder.mustAcquire(t)
		ctx, cancel := context.WithCancel(context.Background())
		c := waiter.start(ctx)
		time.AfterFunc(rand.N(longest), cancel)
		time.Sleep(rand.N(longest))
		mustRelease(t, h)
		receive(t, ctx.Done(), "a timer")
		if checkCanceled(t, waiter, receive(t, c, w.name+" with a context that is done")) {
			granted++
		}
		holder.mustBeFree(t)
	}
	t.Logf("%d of %d were granted", granted, rounds)
}

// checkCanceled checks the result of an acquire whose context is canceled, maybe after it was
// granted, and reports whether it was. If so, it releases the lock.
func checkCanceled(t *testing.T, a access, r result) (granted bool) {
	t.Helper()
	if r.err != nil {
		checkError(t, r.err, "acquire", context.Canceled)
		checkError(t, a.release(a.lock), "release", fasteners.ErrNotAcquired)
		return false
	}
	if r.ctx != nil {
		receive(t, r.ctx.Done(), "the context of the hold, when that it was acquired with has ended,")
	}
	mustRelease(t, r.holding)
	return true
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
		other.mustBeHeld(t)
		mustRelease(t, h)
		other.mustBeFree(t)
	}
}

// waitBriefly waits until an acquire ends, or a moment has passed. Its result is in the channel
// that it returns.
func waitBriefly(c <-chan result) <-chan result {
	select {
	case r := <-c:
		return resultOf(r)
	case <-time.After(brief):
		return c
	}
}

func resultOf(r result) <-chan result {
	c := make(chan result, 1)
	c <- r
	return c
}
