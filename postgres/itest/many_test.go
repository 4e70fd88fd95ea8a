package itest

import (
	"context"
	"testing"

	"github.com/go-fasteners/fasteners/internal/enginetest/must"
	"github.com/go-fasteners/fasteners/postgres"
)

func TestWaitersShareConnection(t *testing.T) {
	s := commonServer(t)
	admin := s.Connect(t)
	other := postgres.NewLock(newDB(t, s), t.Name())
	must.Succeed(t, other.Acquire(background))
	const n = 1000
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	results := make(chan error, n)
	lock := postgres.NewLock(newDB(t, s), t.Name())
	for range n {
		go func() { results <- lock.Acquire(ctx) }()
	}
	awaitBlocked(t, n)
	awaitLocks(t, admin, t.Name(), 1, 1)
	// Half of them get it, one after the other, and the others give up.
	must.Succeed(t, other.Release())
	for range n / 2 {
		must.Succeed(t, <-results)
		must.Succeed(t, lock.Release())
	}
	cancel()
	granted := 0
	for range n / 2 {
		if err := <-results; err == nil {
			granted++
			must.Succeed(t, lock.Release())
		} else {
			must.Fail(t, err, context.Canceled)
		}
	}
	if granted > 1 {
		t.Errorf("%d have acquired the lock after their context was done", granted)
	}
	awaitLocks(t, admin, t.Name(), 0, 0)
}

// TestProcessesTakeTurns checks that a process with many waiters does not keep another one waiting.
func TestProcessesTakeTurns(t *testing.T) {
	s := commonServer(t)
	admin := s.Connect(t)
	busy, crowd := postgres.NewLock(newDB(t, s), t.Name()), postgres.NewLock(newDB(t, s), t.Name())
	must.Succeed(t, busy.Acquire(background))
	const n = 20
	results := make(chan error, n)
	for range n {
		go func() { results <- crowd.Acquire(background) }()
	}
	awaitBlocked(t, n)
	for range n {
		awaitLocks(t, admin, t.Name(), 1, 1) // the crowd waits
		must.Succeed(t, busy.Release())
		again := must.Go(func() error { return busy.Acquire(background) })
		must.Succeed(t, <-results)
		awaitLocks(t, admin, t.Name(), 1, 1) // busy waits
		must.Succeed(t, crowd.Release())
		must.Succeed(t, <-again)
	}
	must.Succeed(t, busy.Release())
}
