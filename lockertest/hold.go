package lockertest

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
)

type key struct{}

// testHold checks the contexts of holds.
func (s *suite) testHold(t *testing.T, w way) {
	a := s.open(t, lockName(t), w)
	ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), key{}, "value"), time.Hour)
	defer cancel()
	h := a.mustGet(t, a.start(ctx))
	if h.ctx.Value(key{}) != "value" {
		t.Error("the context of the hold does not have the values of that which the lock was acquired with")
	}
	until, ok := h.ctx.Deadline()
	if limit, _ := ctx.Deadline(); !ok || until.After(limit) {
		t.Error("the context of the hold does not have the deadline of that which the lock was acquired with")
	}
	child, cancelChild := context.WithCancel(h.ctx)
	defer cancelChild()
	if h.ctx.Err() != nil || child.Err() != nil {
		t.Errorf("the lock is held, and the context of the hold is done: %v", context.Cause(h.ctx))
	}
	mustRelease(t, h)
	checkReleased(t, h.ctx)
	checkReleased(t, child)
	// Now nobody has asked for anything before the release.
	h = a.mustAcquire(t)
	mustRelease(t, h)
	checkReleased(t, h.ctx)
}

// checkReleased checks that ctx is done because the lock was released.
func checkReleased(t *testing.T, ctx context.Context) {
	t.Helper()
	receive(t, ctx.Done(), "the context of a hold that was released")
	if ctx.Err() != context.Canceled {
		t.Errorf("released, and the error of the context is %v", ctx.Err())
	}
	if cause := context.Cause(ctx); errors.Is(cause, fasteners.ErrLost) {
		t.Errorf("released, and the cause of the end of the context is %q", cause)
	}
}

// testFunction checks fasteners.WithLock and its siblings with the locks.
func (s *suite) testFunction(t *testing.T, w way) {
	name := lockName(t)
	a, other := s.open(t, name, w), s.open(t, name, w.exclusive())
	ctx := context.WithValue(context.Background(), key{}, "value")
	errFn := errors.New("of the function")
	err := a.with(ctx, a.lock, func(ctx context.Context) error {
		if ctx.Value(key{}) != "value" || ctx.Err() != nil {
			t.Error("the context of the function is not derived from the one given, or is done")
		}
		other.mustBeHeld(t)
		return errFn
	})
	if err != errFn {
		t.Errorf("error is %v, want that of the function", err)
	}
	other.mustBeFree(t)
	for _, leave := range []func(){func() { panic("of the test") }, runtime.Goexit} {
		left := make(chan bool)
		go func() {
			defer close(left)
			defer func() { _ = recover() }()
			_ = a.with(ctx, a.lock, func(context.Context) error { leave(); return nil })
		}()
		receive(t, left, "a function that does not return, or the release after it,")
		other.mustBeFree(t)
	}
}
