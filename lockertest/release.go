package lockertest

import (
	"context"
	"testing"

	"github.com/go-fasteners/fasteners"
)

// testRelease checks that a release ends a hold that is there, and no other.
func (s *suite) testRelease(t *testing.T) {
	s.forEachWay(t, "Fails", s.testFailedRelease, isAny)
	s.forEachWay(t, "OtherHold", s.testOtherHold, isHeld)
	s.forEachWay(t, "EndsHold", s.testReleaseEndsHold, isHeld)
	s.forEachWay(t, "SparesHold", s.testReleaseSparesHold, func(w way) bool { return w.held && w.shared })
}

// testFailedRelease checks that a release that fails changes nothing: while nobody holds the lock;
// and while another value does, somebody waits, and there is the holder of another lock.
func (s *suite) testFailedRelease(t *testing.T, w way) {
	name, otherName := lockName(t), lockName(t)
	stranger, former, holder := s.open(t, name, w), s.open(t, name, w), s.open(t, name, w)
	checkError(t, stranger.release(stranger.lock), "release", fasteners.ErrNotAcquired)
	ended := former.mustAcquire(t)
	mustRelease(t, ended)
	type failure struct {
		what    string
		release func() error
		target  error
	}
	failures := []failure{
		{"a second release", ended.release, fasteners.ErrNotAcquired},
		{"a release through a value that has never held the lock",
			func() error { return stranger.release(stranger.lock) }, fasteners.ErrNotAcquired},
	}
	for _, f := range failures {
		checkError(t, f.release(), "release", f.target)
	}
	if w.rw {
		otherMode := acquireRead
		if w.shared {
			otherMode = acquireWrite
		}
		failures = append(failures, failure{"a release in the other mode",
			func() error { return otherMode.release(holder.lock) }, fasteners.ErrNotAcquired})
	}
	if w.held {
		ended := holder.mustAcquire(t)
		mustRelease(t, ended)
		failures = append(failures, failure{"a second release through the value of the holder",
			ended.release, fasteners.ErrNotAcquired})
	}
	for _, queue := range []bool{false, true} {
		all := failures
		if s.Lose != nil {
			lost := s.lost(t, name, w)
			all = append(all[:len(all):len(all)],
				failure{"the release of a lost lock", lost.release, fasteners.ErrLost},
				failure{"a second release of a lost lock", lost.release, fasteners.ErrNotAcquired})
		}
		others := []*other{
			s.hold(t, name, holder, queue),
			s.hold(t, otherName, s.open(t, otherName, s.withContext(w)), queue),
		}
		for _, f := range all {
			checkError(t, f.release(), "release", f.target)
			if !queue {
				mustNotNotice(t, f.what, others...)
			}
		}
		if queue {
			mustNotNotice(t, "releases that failed", others...)
		}
		for _, o := range others {
			o.leave(t)
		}
	}
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
