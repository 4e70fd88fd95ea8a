package lease

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-fasteners/fasteners"
)

// run calls fn with a clock that goes as time does in the bubble, and can be ahead of it: suspend
// makes it so, as if the machine had been suspended, and no timer runs.
func run(t *testing.T, fn func(t *testing.T, suspend func(time.Duration))) {
	t.Helper()
	defer func() { now = boottime }()
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		var suspended atomic.Int64
		now = func() time.Duration { return time.Since(begun) + time.Duration(suspended.Load()) }
		defer synctest.Wait() // for timers that have run
		fn(t, func(d time.Duration) { suspended.Add(int64(d)) })
	})
}

// A fakeHold counts its releases.
type fakeHold struct {
	Hold
	released int
}

func (h *fakeHold) Release() error {
	h.released++
	return h.Err()
}

// grantAll returns a handle of an engine that grants everything, with a hold of the lease.
func grantAll(l *Lease) *Handle[*fakeHold] {
	return &Handle[*fakeHold]{Name: "x", Engine: &Engine[*fakeHold]{
		Acquire: func(context.Context, string, Mode, bool) (*fakeHold, error) {
			return &fakeHold{Hold: Hold{Lease: l}}, nil
		},
	}}
}

// hold acquires an exclusive lock.
func hold(t *testing.T, ctx context.Context, h *Handle[*fakeHold]) (*fakeHold, context.Context, func() error) {
	t.Helper()
	held, release, err := h.Hold(ctx, Exclusive)
	must(t, err)
	f, ok := HoldOf[*fakeHold](held)
	if !ok {
		t.Fatal("the context of a hold has no hold")
	}
	return f, held, release
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// child returns a context that is derived from that of a hold, and so does not look at the clock: it
// is done only if somebody ends it.
func child(t *testing.T, held context.Context) context.Context {
	ctx, cancel := context.WithCancel(held)
	t.Cleanup(cancel)
	return ctx
}

func checkHeld(t *testing.T, ctx context.Context) {
	t.Helper()
	if ctx.Err() != nil {
		t.Errorf("the context is done: %v", context.Cause(ctx))
	}
}

// checkLost checks that a context is done, even if nobody asks it.
func checkLost(t *testing.T, ctx context.Context, cause error) {
	t.Helper()
	select {
	case <-ctx.Done():
	default:
		t.Error("the context is not done")
	}
	if err := context.Cause(ctx); !errors.Is(err, fasteners.ErrLost) || !errors.Is(err, cause) {
		t.Errorf("cause of the end is %v, want ErrLost and %v", err, cause)
	}
}
