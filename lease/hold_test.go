package lease

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
)

// One hold is lost, and not the others of its lease.
func TestLoseOneHold(t *testing.T) {
	run(t, func(t *testing.T, _ func(time.Duration)) {
		l := New(Now(), 10*time.Second, time.Second)
		handle := grantAll(l)
		lost, heldOfLost, release := hold(t, t.Context(), handle)
		other, held, _ := hold(t, t.Context(), handle)
		lost.Lose(errServer)
		lost.Lose(errors.New("another cause"))
		checkLost(t, heldOfLost, errServer)
		checkHeld(t, held)
		if !errors.Is(lost.Err(), errServer) || other.Err() != nil || l.Err() != nil {
			t.Error(lost.Err(), other.Err(), l.Err())
		}
		if err := release(); !errors.Is(err, errServer) {
			t.Error(err)
		}
		l.Close()
	})
}

// What is released is not lost any more, and the end of its context is not a loss. The context is
// done before the lock is released.
func TestRelease(t *testing.T) {
	run(t, func(t *testing.T, _ func(time.Duration)) {
		l := New(Now(), 10*time.Second, time.Second)
		h, held, release := hold(t, t.Context(), grantAll(l))
		must(t, release())
		l.Lose(errServer)
		h.Lose(errServer)
		if h.Err() != nil || context.Cause(held) != context.Canceled || h.released != 1 {
			t.Error(h.Err(), context.Cause(held), h.released)
		}
		if err := release(); !errors.Is(err, fasteners.ErrNotAcquired) || h.released != 1 {
			t.Error(err, h.released)
		}
		if len(l.holds) != 0 {
			t.Error("the lease still has the hold")
		}
	})
}

// A release looks at the clock before it ends the context: the cause is the loss.
func TestReleaseAfterSuspension(t *testing.T) {
	run(t, func(t *testing.T, suspend func(time.Duration)) {
		_, held, release := hold(t, t.Context(), grantAll(New(Now(), 10*time.Second, time.Second)))
		suspend(time.Minute)
		if err := release(); !errors.Is(err, errExpired) {
			t.Error(err)
		}
		checkLost(t, held, errExpired)
	})
}

// Holds without a lease are not lost by themselves.
func TestNoLease(t *testing.T) {
	run(t, func(t *testing.T, suspend func(time.Duration)) {
		h, held, release := hold(t, t.Context(), grantAll(nil))
		suspend(time.Hour)
		checkHeld(t, held)
		if h.Err() != nil {
			t.Error(h.Err())
		}
		must(t, release())
		if held.Err() == nil {
			t.Error("released, and the context is not done")
		}
	})
}

type key struct{}

// The context of a hold has the values of its parent, the token, and the hold of each engine.
func TestHoldOf(t *testing.T) {
	type otherHold struct{ *fakeHold }
	handle := grantAll(nil)
	others := &Handle[otherHold]{Name: "x", Engine: &Engine[otherHold]{
		Acquire: func(context.Context, string, Mode, bool) (otherHold, error) {
			return otherHold{&fakeHold{Hold: Hold{Token: 5}}}, nil
		},
	}}
	outer, held, _ := hold(t, context.WithValue(t.Context(), key{}, "value"), handle)
	if _, ok := fasteners.Token(held); ok {
		t.Error("a hold without a token has one")
	}
	if _, ok := HoldOf[otherHold](held); ok {
		t.Error("a hold of another engine is taken for one of this")
	}
	held, _, err := others.Hold(held, Shared)
	must(t, err)
	if h, ok := HoldOf[*fakeHold](held); !ok || h != outer {
		t.Error("a hold of another engine hides that of this one")
	}
	inner, held, _ := hold(t, held, handle)
	if h, _ := HoldOf[*fakeHold](held); h != inner || inner == outer {
		t.Error("the hold is not the innermost one")
	}
	if token, ok := fasteners.Token(held); held.Value(key{}) != "value" || token != 5 || !ok {
		t.Error(held.Value(key{}), token, ok)
	}
	if _, ok := HoldOf[*fakeHold](t.Context()); ok {
		t.Error("a context of no hold has one")
	}
}
