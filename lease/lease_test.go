package lease

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-fasteners/fasteners"
)

var errServer = errors.New("server has ended the lease")

// The deadline counts from when a sign of life was sent, and is the margin before the TTL is over.
func TestDeadline(t *testing.T) {
	run(t, func(t *testing.T, _ func(time.Duration)) {
		sent := Now()
		time.Sleep(2 * time.Second) // until the answer arrives
		l := New(sent, 10*time.Second, time.Second)
		_, held, _ := hold(t, t.Context(), grantAll(l))
		ctx := child(t, held)
		time.Sleep(7*time.Second - time.Nanosecond)
		checkHeld(t, held)
		if l.Err() != nil || l.Deadline() != sent+9*time.Second {
			t.Error(l.Err(), l.Deadline())
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		checkLost(t, ctx, errExpired)
		checkLost(t, held, errExpired)
		checkLost(t, l.Context(), errExpired)
		if l.Err() != errExpired {
			t.Error(l.Err())
		}
	})
}

// A lease that is over when the answer arrives is lost at once.
func TestOverFromTheStart(t *testing.T) {
	run(t, func(t *testing.T, _ func(time.Duration)) {
		l := New(Now()-10*time.Second, 10*time.Second, time.Second)
		_, held, _ := hold(t, t.Context(), grantAll(l))
		checkLost(t, held, errExpired)
		checkLost(t, l.Context(), errExpired)
	})
}

func TestRenew(t *testing.T) {
	run(t, func(t *testing.T, _ func(time.Duration)) {
		l := New(Now(), 10*time.Second, time.Second)
		_, held, _ := hold(t, t.Context(), grantAll(l))
		ctx := child(t, held)
		for range 5 {
			sent := Now()
			time.Sleep(8 * time.Second)
			l.Renew(sent, 10*time.Second) // extends it by nothing, at first
			l.Renew(Now(), 10*time.Second)
			l.Renew(sent, 10*time.Second) // answers can arrive in another order
			if want := Now() + 9*time.Second; l.Deadline() != want {
				t.Errorf("deadline is %v, want %v", l.Deadline(), want)
			}
		}
		checkHeld(t, held)
		time.Sleep(9*time.Second - time.Nanosecond)
		checkHeld(t, held)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		checkLost(t, ctx, errExpired)
		l.Renew(Now(), 10*time.Second)
		checkLost(t, held, errExpired)
	})
}

// After a suspension no timer has run, and an answer that was sent before comes too late.
func TestSuspension(t *testing.T) {
	for name, look := range map[string]func(l *Lease, h *fakeHold, held context.Context) bool{
		"Lease.Err":       func(l *Lease, _ *fakeHold, _ context.Context) bool { return l.Err() != nil },
		"Hold.Err":        func(_ *Lease, h *fakeHold, _ context.Context) bool { return h.Err() != nil },
		"Err of context":  func(_ *Lease, _ *fakeHold, held context.Context) bool { return held.Err() != nil },
		"Done of context": func(_ *Lease, _ *fakeHold, held context.Context) bool { return isDone(held) },
		"derived context": func(_ *Lease, _ *fakeHold, held context.Context) bool {
			ctx, cancel := context.WithCancel(held)
			defer cancel()
			return ctx.Err() != nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, suspend func(time.Duration)) {
				l := New(Now(), 10*time.Second, time.Second)
				h, held, _ := hold(t, t.Context(), grantAll(l))
				if look(l, h, held) {
					t.Fatal("lost before its time")
				}
				sent := Now()
				suspend(9 * time.Second)
				l.Renew(sent, 20*time.Second)
				if !look(l, h, held) {
					t.Error("the loss is not seen")
				}
				checkLost(t, held, errExpired)
			})
		})
	}
}

func isDone(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return true
	default:
		return false
	}
}

// When Lose returns, all contexts are done, whoever calls it, and those of holds that were acquired
// with the contexts of others.
func TestLose(t *testing.T) {
	for range 100 {
		run(t, func(t *testing.T, _ func(time.Duration)) {
			l := New(Now(), 10*time.Second, time.Second)
			handle := grantAll(l)
			parent := t.Context()
			var all []context.Context
			for range 5 {
				_, held, _ := hold(t, parent, handle)
				all = append(all, child(t, held))
				parent = held
			}
			var wg sync.WaitGroup
			for _, lose := range []func(){
				func() { l.Lose(errServer) },
				func() { l.Lose(errServer) },
				func() { _ = l.Err() },
			} {
				wg.Go(func() {
					lose()
					if !isDone(l.Context()) {
						return // Err came first
					}
					for _, ctx := range all {
						checkLost(t, ctx, errServer)
					}
				})
			}
			wg.Wait()
			checkLost(t, l.Context(), errServer)
			l.Lose(errors.New("another cause"))
			if !errors.Is(l.Err(), errServer) {
				t.Error(l.Err())
			}
		})
	}
}

// The cause of a loss wraps ErrLost once.
func TestCauseOfLoss(t *testing.T) {
	run(t, func(t *testing.T, _ func(time.Duration)) {
		l := New(Now(), 10*time.Second, time.Second)
		l.Lose(errServer)
		if text := "lock was lost: server has ended the lease"; l.Err().Error() != text {
			t.Errorf("error is %q, want %q", l.Err(), text)
		}
		l = New(Now(), 10*time.Second, time.Second)
		l.Lose(fasteners.ErrLost)
		if l.Err() != fasteners.ErrLost {
			t.Error(l.Err())
		}
	})
}

// A lease that is closed is not lost, and its timer does not run any more.
func TestClose(t *testing.T) {
	run(t, func(t *testing.T, _ func(time.Duration)) {
		l := New(Now(), 10*time.Second, time.Second)
		l.Close()
		time.Sleep(time.Minute)
		l.Lose(errServer)
		if l.Err() != nil || isDone(l.Context()) {
			t.Error(l.Err())
		}
	})
}

// Neither a hold nor a context that is derived from its context has a goroutine.
func TestGoroutines(t *testing.T) {
	run(t, func(t *testing.T, _ func(time.Duration)) {
		before := runtime.NumGoroutine()
		l := New(Now(), 10*time.Second, time.Second)
		handle := grantAll(l)
		for range 100 {
			_, held, _ := hold(t, t.Context(), handle)
			child(t, held)
		}
		if n := runtime.NumGoroutine() - before; n > 10 {
			t.Errorf("100 holds have %d goroutines", n)
		}
		l.Close()
	})
}
