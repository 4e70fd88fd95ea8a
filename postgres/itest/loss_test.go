package itest

import (
	"context"
	"testing"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/internal/enginetest/must"
	"github.com/go-fasteners/fasteners/postgres"
)

func TestTerminated(t *testing.T) {
	s := commonServer(t)
	admin := s.Connect(t)
	lock := postgres.NewLock(newDB(t, s), t.Name())
	held, release, err := lock.Hold(background)
	must.Succeed(t, err)
	terminateHolders(t, admin, t.Name())
	<-held.Done()
	must.Fail(t, context.Cause(held), fasteners.ErrLost)
	must.Succeed(t, lock.Acquire(background)) // through the same value
	must.Fail(t, release(), fasteners.ErrLost)
	must.Fail(t, release(), fasteners.ErrNotAcquired)
	must.Succeed(t, lock.Release())
}

// TestCloseLoses checks that closing the DB ends holds and waits.
func TestCloseLoses(t *testing.T) {
	s := commonServer(t)
	db := newDB(t, s)
	lock := postgres.NewLock(db, t.Name())
	held, release, err := lock.Hold(background)
	must.Succeed(t, err)
	waiter := must.Go(func() error { return lock.Acquire(background) })
	awaitBlocked(t, 1)
	db.Close()
	<-held.Done()
	must.Fail(t, context.Cause(held), fasteners.ErrLost)
	must.Fail(t, context.Cause(held), postgres.ErrClosed)
	must.Fail(t, <-waiter, postgres.ErrClosed)
	must.Fail(t, release(), fasteners.ErrLost)
	awaitLocks(t, s.Connect(t), t.Name(), 0, 0)
}
