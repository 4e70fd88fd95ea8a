//go:build unix || windows

package tests

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/internal/stress"
)

// If the context is done, acquire fails even if the lock is free.
func TestDoneContext(t *testing.T) {
	path := lockPath(t)
	canceled, cancel := context.WithCancel(background)
	cancel()
	past, cancel := context.WithDeadline(background, time.Unix(0, 0))
	defer cancel()
	for _, v := range variants(path) {
		checkError(t, v.acquire(canceled), "acquire", path, context.Canceled)
		checkError(t, v.acquire(past), "acquire", path, context.DeadlineExceeded)
		v.mustTry(t, true)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	for _, holder := range []string{"same process", "other process"} {
		for _, variant := range variantNames {
			t.Run(holder+"/"+variant, func(t *testing.T) {
				path := lockPath(t)
				if holder == "same process" {
					h := exclusive(path)
					h.mustAcquire(t)
					checkCancel(t, path, variantNamed(path, variant), func() { h.mustRelease(t) })
				} else {
					p := startHolder(t, path, "exclusive")
					checkCancel(t, path, variantNamed(path, variant), p.release)
				}
			})
		}
	}
}

// checkCancel cancels waiters while the lock is held. At the end it releases the lock.
func checkCancel(t *testing.T, path string, v variant, release func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(background)
	done := v.goAcquire(t, ctx)
	cancel()
	checkError(t, <-done, "acquire", path, context.Canceled)
	checkError(t, v.release(), "release", path, fasteners.ErrNotAcquired)

	ctx, cancel = context.WithTimeout(background, time.Millisecond)
	defer cancel()
	checkError(t, v.acquire(ctx), "acquire", path, context.DeadlineExceeded)

	// A waiter behind a canceled one acquires the lock.
	ctx, cancel = context.WithCancel(background)
	first := v.goAcquire(t, ctx)
	last := writer(path)
	second := last.goAcquire(t, cancelable(t))
	cancel()
	checkError(t, <-first, "acquire", path, context.Canceled)
	release()
	must(t, <-second)
	last.mustRelease(t)
}

// A canceled waiter never holds the lock, even if the lock is released immediately afterwards.
func TestCanceledBeforeRelease(t *testing.T) {
	path := lockPath(t)
	for range stress.Rounds() {
		holder, v := exclusive(path), writer(path)
		holder.mustAcquire(t)
		ctx, cancel := context.WithCancel(background)
		done := make(chan error, 1)
		go func() { done <- v.acquire(ctx) }()
		cancel()
		holder.mustRelease(t)
		checkError(t, <-done, "acquire", path, context.Canceled)
		holder.mustTry(t, true)
	}
}

// Waiting readers behind a waiting writer acquire the lock when the writer is canceled.
func TestReadersBehindCanceledWriter(t *testing.T) {
	path := lockPath(t)
	first, late := reader(path), reader(path)
	first.mustAcquire(t)
	ctx, cancel := context.WithCancel(background)
	w := writer(path).goAcquire(t, ctx)
	late.mustTry(t, false) // as with sync.RWMutex
	r := late.goAcquire(t, background)
	cancel()
	checkError(t, <-w, "acquire", path, context.Canceled)
	must(t, <-r)
	late.mustRelease(t)
	first.mustRelease(t)
}

// Many waiters are canceled while two processes compete for the lock, and leave nothing behind.
func TestCancelStress(t *testing.T) {
	t.Parallel()
	path := lockPath(t)
	busy := startHelper(t, toggleHelper, path)
	p := startHelper(t, cancelStressHelper, path)
	p.expect("done")
	busy.finish()
}

// toggleHelper acquires and releases a lock until its input ends.
var toggleHelper = newHelper("toggle", func(in *bufio.Reader, args []string) error {
	v := writer(args[0])
	ctx := cancelAtEOF(in)
	for {
		if err := v.acquire(background); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return v.release()
		case <-time.After(rand.N(3 * time.Millisecond)):
		}
		if err := v.release(); err != nil {
			return err
		}
	}
})

var cancelStressHelper = newHelper("cancel stress", func(in *bufio.Reader, args []string) error {
	path := args[0]
	go exitAtEOF(in)
	before := resources(path)
	if err := cancelManyWaiters(path); err != nil { // also creates what the runtime keeps for itself
		return err
	}
	before = waitForUsage(path, before)
	if err := cancelManyWaiters(path); err != nil {
		return err
	}
	waitForUsage(path, before)
	fmt.Println("done")
	return nil
})

// cancelManyWaiters waits for the lock in many goroutines, again and again, with deadlines that may
// expire before the lock is acquired.
func cancelManyWaiters(path string) error {
	var g group
	for i := range 200 {
		v := variants(path)[i%3]
		g.Go(func() error {
			for range stress.Rounds() {
				ctx, cancel := context.WithTimeout(background, rand.N(20*time.Millisecond))
				err := v.hold(ctx)
				cancel()
				if err != nil && !errors.Is(err, context.DeadlineExceeded) {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}
