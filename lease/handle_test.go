package lease

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
)

// Every error of a handle tells the lock, and what was wrong.
func TestErrors(t *testing.T) {
	errCause := errors.New("cause")
	over, cancel := context.WithTimeoutCause(t.Context(), -time.Second, errCause)
	defer cancel()
	invalid := grantAll(nil)
	invalid.Engine.Invalid = fs.ErrInvalid
	unnamed := grantAll(nil)
	unnamed.Name = ""
	for text, c := range map[string]struct {
		handle  *Handle[*fakeHold]
		ctx     context.Context
		wraps   error
		timeout bool
	}{
		"acquire x: nil context: invalid argument":    {grantAll(nil), nil, fs.ErrInvalid, false},
		"acquire : empty name: invalid argument":      {unnamed, t.Context(), fs.ErrInvalid, false},
		"acquire x: invalid argument":                 {invalid, t.Context(), fs.ErrInvalid, false},
		"acquire x: context deadline exceeded: cause": {grantAll(nil), over, errCause, true},
		"acquire y: lock was not made by its constructor, or of nil: invalid argument": {
			&Handle[*fakeHold]{Name: "y"}, t.Context(), fs.ErrInvalid, false},
	} {
		_, errTry := c.handle.TryAcquire(c.ctx, Shared)
		_, _, errHold := c.handle.Hold(c.ctx, Shared)
		for _, err := range []error{c.handle.Acquire(c.ctx, Exclusive), errTry, errHold} {
			if err == nil || err.Error() != text || !errors.Is(err, c.wraps) || os.IsTimeout(err) != c.timeout {
				t.Errorf("error is %v, want %s", err, text)
			}
		}
		err := c.handle.Release(Shared)
		var pathErr *fs.PathError
		if !errors.As(err, &pathErr) || pathErr.Path != c.handle.Name || !errors.Is(err, fasteners.ErrNotAcquired) {
			t.Errorf("error of a release is %v", err)
		}
	}
}

// A release without a context ends a hold that is lost, or else the newest one, of its mode; and
// one that has a context only if all have.
func TestWhichHoldIsReleased(t *testing.T) {
	handle := grantAll(nil)
	var granted []*fakeHold
	acquire := handle.Engine.Acquire
	handle.Engine.Acquire = func(ctx context.Context, name string, m Mode, try bool) (*fakeHold, error) {
		h, err := acquire(ctx, name, m, try)
		granted = append(granted, h)
		return h, err
	}
	get := func(m Mode) {
		t.Helper()
		must(t, handle.Acquire(t.Context(), m))
	}
	getContext := func(m Mode) {
		t.Helper()
		_, _, err := handle.Hold(t.Context(), m)
		must(t, err)
	}
	released := func(m Mode, want int) {
		t.Helper()
		err := handle.Release(m)
		if lost := granted[want].Err(); !errors.Is(err, lost) || (err == nil) != (lost == nil) {
			t.Error(err)
		}
		if granted[want].released != 1 {
			t.Errorf("hold %d is not released", want)
		}
	}
	getContext(Shared) // 0
	get(Shared)        // 1
	get(Exclusive)     // 2, lost without anybody knowing
	get(Shared)        // 3
	get(Exclusive)     // 4
	get(Shared)        // 5
	getContext(Shared) // 6
	granted[0].Lose(errServer)
	granted[3].Lose(errServer)
	for _, want := range []int{3, 5, 1, 0, 6} {
		released(Shared, want)
	}
	if handle.Acquired(Shared) || !handle.Acquired(Exclusive) {
		t.Error("wrong about what is held")
	}
	released(Exclusive, 2)
	granted[4].Lose(errServer)
	if handle.Acquired(Exclusive) {
		t.Error("a lost lock is said to be held")
	}
	released(Exclusive, 4)
	if err := handle.Release(Exclusive); !errors.Is(err, fasteners.ErrNotAcquired) {
		t.Error(err)
	}
}

// The timeout bounds a wait, and neither a try nor the hold.
func TestTimeout(t *testing.T) {
	run(t, func(t *testing.T, _ func(time.Duration)) {
		handle := grantAll(nil)
		handle.Engine.Timeout = time.Second
		_, held, _ := hold(t, t.Context(), handle)
		handle.Engine.Acquire = func(ctx context.Context, _ string, _ Mode, try bool) (*fakeHold, error) {
			if _, ok := ctx.Deadline(); ok == try {
				t.Error("a try has a deadline, or a wait has none")
			}
			if try {
				return nil, ErrBusy
			}
			<-ctx.Done()
			return nil, &fasteners.HeldError{Err: ContextError(ctx)}
		}
		begun := time.Now()
		err := handle.Acquire(t.Context(), Shared)
		if !os.IsTimeout(err) || time.Since(begun) != time.Second {
			t.Error(err, time.Since(begun))
		}
		if ok, err := handle.TryAcquire(t.Context(), Shared); ok || err != nil {
			t.Error(ok, err)
		}
		checkHeld(t, held)
	})
}

func TestLog(t *testing.T) {
	run(t, func(t *testing.T, _ func(time.Duration)) {
		var out bytes.Buffer
		handle := grantAll(nil)
		handle.Engine.Logger = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{
			Level: slog.LevelDebug,
			ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey {
					return slog.Attr{}
				}
				return a
			},
		}))
		grant := handle.Engine.Acquire
		handle.Engine.Acquire = func(ctx context.Context, name string, m Mode, try bool) (*fakeHold, error) {
			if try {
				return nil, ErrBusy
			}
			time.Sleep(5 * time.Second)
			return grant(ctx, name, m, try)
		}
		_, _ = handle.TryAcquire(t.Context(), Exclusive)
		must(t, handle.Acquire(t.Context(), Shared))
		must(t, handle.Release(Shared))
		_ = handle.Release(Shared)
		time.Sleep(time.Hour)
		handle.Engine.Log(slog.LevelWarn, "lost the lock", "x", errServer)
		want := `
level=DEBUG msg="fasteners: try to acquire" mode=exclusive acquired=false path=x
level=INFO msg="fasteners: waiting" mode=shared waited=1s path=x
level=INFO msg="fasteners: waiting" mode=shared waited=2s path=x
level=INFO msg="fasteners: waiting" mode=shared waited=4s path=x
level=DEBUG msg="fasteners: acquire" mode=shared waited=5s path=x
level=DEBUG msg="fasteners: release" path=x
level=DEBUG msg="fasteners: release" path=x error="lock is not acquired"
level=WARN msg="fasteners: lost the lock" path=x error="server has ended the lease"
`
		if got := out.String(); got != strings.TrimPrefix(want, "\n") {
			t.Errorf("log is\n%s, want%s", got, want)
		}
	})
}
