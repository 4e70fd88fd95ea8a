package lockertest

import (
	"context"
	"testing"

	"github.com/go-fasteners/fasteners"
)

// testRelease checks that a release ends a hold that is there, and no other.
func (s *suite) testRelease(t *testing.T) {
	s.forEachWay(t, "NotAcquired", s.testNotAcquired, isAny)
	s.forEachWay(t, "Twice", s.testReleaseTwice, isAny)
	s.forEachWay(t, "OtherHold", s.testOtherHold, isHeld)
	s.forEachWay(t, "EndsHold", s.testReleaseEndsHold, isHeld)
	s.forEachWay(t, "SparesHold", s.testReleaseSparesHold, func(w way) bool { return w.held && w.shared })
}

// testNotAcquired releases through a lock value that does not hold the lock: while nobody does,
// while another value does, and while this one does in the other mode.
func (s *suite) testNotAcquired(t *testing.T, w way) {
	name := lockName(t)
	a, holder, other := s.open(t, name, w), s.open(t, name, w), s.open(t, name, w.exclusive())
	checkError(t, a.release(a.lock), "release", fasteners.ErrNotAcquired)
	h := holder.mustAcquire(t)
	checkError(t, a.release(a.lock), "release", fasteners.ErrNotAcquired)
	if w.rw {
		otherMode := acquireRead
		if w.shared {
			otherMode = acquireWrite
		}
		checkError(t, otherMode.release(holder.lock), "release", fasteners.ErrNotAcquired)
	}
	h.mustGoOn(t, other)
	mustRelease(t, h)
	other.mustBeFree(t)
}

// testReleaseTwice releases a hold twice: while nobody holds the lock, and while another lock
// value does.
func (s *suite) testReleaseTwice(t *testing.T, w way) {
	name := lockName(t)
	a, holder, other := s.open(t, name, w), s.open(t, name, w), s.open(t, name, w.exclusive())
	ended := a.mustAcquire(t)
	mustRelease(t, ended)
	checkError(t, ended.release(), "release", fasteners.ErrNotAcquired)
	h := holder.mustAcquire(t)
	checkError(t, ended.release(), "release", fasteners.ErrNotAcquired)
	h.mustGoOn(t, other)
	mustRelease(t, h)
	other.mustBeFree(t)
}

// testOtherHold checks that the release of a hold does not end another one through the same lock
// value.
func (s *suite) testOtherHold(t *testing.T, w way) {
	name := lockName(t)
	a, other := s.open(t, name, w), s.open(t, name, w.exclusive())
	first := a.mustAcquire(t)
	if w.shared {
		second := a.mustAcquire(t)
		mustRelease(t, first)
		receive(t, first.ctx.Done(), "the context of a hold that was released")
		second.mustGoOn(t, other)
		checkError(t, first.release(), "release", fasteners.ErrNotAcquired)
		second.mustGoOn(t, other)
		mustRelease(t, second)
		other.mustBeFree(t)
		return
	}
	mustRelease(t, first)
	second := a.mustAcquire(t)
	checkError(t, first.release(), "release", fasteners.ErrNotAcquired)
	second.mustGoOn(t, other)
	mustRelease(t, second)
	other.mustBeFree(t)
}

// testReleaseEndsHold checks that Release and its siblings end a hold that has a context.
func (s *suite) testReleaseEndsHold(t *testing.T, w way) {
	name := lockName(t)
	a, other := s.open(t, name, w), s.open(t, name, w.exclusive())
	h := a.mustAcquire(t)
	must(t, a.way.release(a.lock))
	receive(t, h.ctx.Done(), "the context of a hold that was released")
	checkError(t, h.release(), "release", fasteners.ErrNotAcquired)
	other.mustBeFree(t)
}

// testReleaseSparesHold checks that ReleaseReadLock ends the hold that has no context, whether
// those that have one are older or newer.
func (s *suite) testReleaseSparesHold(t *testing.T, w way) {
	name := lockName(t)
	a, other := s.open(t, name, w), s.open(t, name, w.exclusive())
	plain := a.as(acquireRead)
	older := a.mustAcquire(t)
	plain.mustAcquire(t)
	newer := a.mustAcquire(t)
	must(t, plain.way.release(plain.lock))
	for _, h := range []*holding{older, newer} {
		h.mustGoOn(t, other)
		mustRelease(t, h)
	}
	checkError(t, plain.way.release(plain.lock), "release", fasteners.ErrNotAcquired)
	other.mustBeFree(t)
}

// mustGoOn checks that other cannot acquire the lock, and that the context of the hold is not done.
func (h *holding) mustGoOn(t *testing.T, other access) {
	t.Helper()
	other.mustBeHeld(t)
	if h.ctx != nil && h.ctx.Err() != nil {
		t.Errorf("the lock is held, and the context of the hold is done: %v", context.Cause(h.ctx))
	}
}
