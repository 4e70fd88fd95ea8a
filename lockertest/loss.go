package lockertest

import (
	"context"
	"errors"
	"testing"

	"github.com/go-fasteners/fasteners"
)

// testLoss checks what holders of a lost lock are told, and that the lock goes on without them.
func (s *suite) testLoss(t *testing.T) {
	s.forEachWay(t, "Told", s.testLossIsTold, isAny)
	s.forEachWay(t, "SameLock", s.testLossOfOtherHold, isHeld)
	s.forEachWay(t, "SameLockInTurn", s.testLossOfOlderHold,
		func(w way) bool { return !w.held && !w.shared })
	s.forEachWay(t, "Function", s.testLossInFunction, isPlain)
}

// lost returns a hold that is lost. Nobody may hold another lock meanwhile: it can be one session
// that all holds are lost with. That is over when somebody else has had the lock.
func (s *suite) lost(t *testing.T, name string, w way) *holding {
	t.Helper()
	h := s.open(t, name, w).mustAcquire(t)
	s.Lose(t, name)
	s.open(t, name, w.exclusive()).mustBeFree(t)
	return h
}

// testLossIsTold checks that all holders are told when they have lost the lock, that a waiter
// gets it, and that what the holders release is not the hold of that waiter.
func (s *suite) testLossIsTold(t *testing.T, w way) {
	name := lockName(t)
	a := s.open(t, name, w)
	next, other := s.open(t, name, w.exclusive()), s.open(t, name, w.exclusive())
	lost := []*holding{a.mustAcquire(t)}
	if w.shared {
		b := s.open(t, name, w)
		lost = append(lost, b.mustAcquire(t))
	}
	c := next.startWaiting(t, t.Context())
	s.Lose(t, name)
	h := next.mustGet(t, c)
	for _, l := range lost {
		if l.ctx != nil {
			receive(t, l.ctx.Done(), "the context of a lost hold")
			checkLost(t, l.ctx)
		}
		checkError(t, l.release(), "release", fasteners.ErrLost)
		h.mustGoOn(t, other)
		checkError(t, l.release(), "release", fasteners.ErrNotAcquired)
		h.mustGoOn(t, other)
	}
	mustRelease(t, h)
	other.mustBeFree(t)
}

// testLossOfOtherHold checks that the release of a lost hold does not end one that was acquired
// later through the same lock value.
func (s *suite) testLossOfOtherHold(t *testing.T, w way) {
	name := lockName(t)
	a, other := s.open(t, name, w), s.open(t, name, w.exclusive())
	lost := a.mustAcquire(t)
	s.Lose(t, name)
	receive(t, lost.ctx.Done(), "the context of a lost hold")
	checkLost(t, lost.ctx)
	h := a.mustAcquire(t)
	h.mustGoOn(t, other)
	checkError(t, lost.release(), "release", fasteners.ErrLost)
	h.mustGoOn(t, other)
	mustRelease(t, h)
	other.mustBeFree(t)
}

// testLossOfOlderHold checks that a release which does not tell the hold ends the one that is
// lost, and not the one that was acquired later through the same lock value.
func (s *suite) testLossOfOlderHold(t *testing.T, w way) {
	name := lockName(t)
	a, other := s.open(t, name, w), s.open(t, name, w.exclusive())
	a.mustAcquire(t)
	s.Lose(t, name)
	h := a.mustAcquire(t)
	checkError(t, a.way.release(a.lock), "release", fasteners.ErrLost)
	h.mustGoOn(t, other)
	mustRelease(t, h)
	other.mustBeFree(t)
}

// testLossInFunction checks that a function under the lock is told, and its caller, too.
func (s *suite) testLossInFunction(t *testing.T, w way) {
	name := lockName(t)
	a := s.open(t, name, w)
	err := a.with(context.Background(), a.lock, func(ctx context.Context) error {
		s.Lose(t, name)
		if s.supplyContexts(w) {
			receive(t, ctx.Done(), "the context of a function whose lock is lost")
			checkLost(t, ctx)
		}
		return nil
	})
	checkError(t, err, "release", fasteners.ErrLost)
	s.open(t, name, w.exclusive()).mustBeFree(t)
}

func checkLost(t *testing.T, ctx context.Context) {
	t.Helper()
	if cause := context.Cause(ctx); ctx.Err() == nil || !errors.Is(cause, fasteners.ErrLost) {
		t.Errorf("lost, and the error of the context is %v, cause %v", ctx.Err(), cause)
	}
}
