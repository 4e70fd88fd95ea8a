package lockertest

import (
	"context"
	"testing"
	"time"
)

// An other holds a lock, and must not notice what somebody else does.
type other struct {
	hold   *holding
	rival  access        // another lock value, in a way that the hold excludes
	behind <-chan result // an acquire by rival that waits for the end of the hold, or nil
}

// hold acquires the lock on name. If there is to be a queue, somebody waits for its end from now
// on. Otherwise [mustNotNotice] tries to get in: who waits already can hide that others get in,
// and who comes just now does not see that a waiter is woken.
func (s *suite) hold(t *testing.T, name string, a access, queue bool) *other {
	t.Helper()
	o := &other{hold: a.mustAcquire(t), rival: s.open(t, name, a.exclusive())}
	if queue {
		o.behind = o.rival.start(context.Background())
	}
	return o
}

// mustNotNotice checks that all others still hold their locks, and nobody else does. It is called
// after what has happened.
func mustNotNotice(t *testing.T, what string, others ...*other) {
	t.Helper()
	if len(others) == 0 {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	rivals := make([]<-chan result, len(others))
	for i, o := range others {
		if rivals[i] = o.behind; o.behind == nil {
			rivals[i] = o.rival.start(ctx)
		}
	}
	time.Sleep(brief)
	for i, o := range others {
		select {
		case r := <-rivals[i]:
			if r.err == nil {
				t.Fatalf("after %s: %s returned nil, though the lock is held", what, o.rival.name)
			}
			t.Fatalf("after %s: %s returned, though its context is not done: %v",
				what, o.rival.name, r.err)
		default:
		}
		if o.hold.ctx != nil && o.hold.ctx.Err() != nil {
			t.Fatalf("after %s: the lock is held, and the context of the hold is done: %v",
				what, context.Cause(o.hold.ctx))
		}
	}
	cancel()
	for i, o := range others {
		if o.behind == nil {
			o.rival.mustFail(t, rivals[i], context.Canceled)
		}
	}
}

// leave releases the lock, which the other must still hold. Then the one that waits for it gets
// it.
func (o *other) leave(t *testing.T) {
	t.Helper()
	mustRelease(t, o.hold)
	if o.behind != nil {
		mustRelease(t, o.rival.mustGet(t, o.behind))
	}
	o.rival.mustBeFree(t)
}

// testFailedAcquire checks that an acquire that fails, or is refused, changes nothing for those
// that hold the lock, through another value or the same, or wait for it, nor for the holder of
// another lock.
func (s *suite) testFailedAcquire(t *testing.T, w way) {
	holders := []way{s.withContext(w.exclusive())}
	if w.rw && !w.shared {
		holders = append(holders, s.withContext(acquireRead))
	}
	otherName := lockName(t)
	neighbor := s.hold(t, otherName, s.open(t, otherName, s.withContext(w)), false)
	for _, hw := range holders {
		for _, sameValue := range []bool{false, true} {
			name := lockName(t)
			holder := s.open(t, name, hw)
			a := holder.as(w)
			if !sameValue {
				a = s.open(t, name, w)
			}
			for _, queue := range []bool{false, true} {
				o := s.hold(t, name, holder, queue)
				failAcquires(t, a, func(what string) {
					t.Helper()
					if !queue {
						mustNotNotice(t, what, o, neighbor)
					}
				})
				if queue {
					mustNotNotice(t, "acquires that failed", o, neighbor)
				}
				o.leave(t)
			}
		}
	}
	neighbor.leave(t)
}

// failAcquires tries to acquire a lock that is held, in all ways to fail, and calls check after
// each.
func failAcquires(t *testing.T, a access, check func(what string)) {
	t.Helper()
	for _, e := range endings(-time.Second) {
		ctx, end := e.start()
		end()
		a.mustFail(t, a.start(ctx), e.targets...)
		if ok, _, _ := a.tryOnce(t, ctx); ok {
			t.Fatalf("%s: Try%s has acquired a lock that somebody else holds", e.name, a.name)
		}
	}
	check("an acquire with a context that was done")
	for _, i := range []int{0, 2} {
		e := endings(brief / 4)[i]
		ctx, end := e.start()
		c := waitFor(brief/4, a.start(ctx))
		end()
		a.mustFail(t, c, e.targets...)
	}
	check("waits that were canceled, and over")
	if ok, err, there := a.tryOnce(t, context.Background()); there {
		if ok || err != nil {
			t.Fatalf("Try%s of a lock that somebody else holds returned %t and the error %v",
				a.name, ok, err)
		}
		check("a try that was refused")
	}
}
