package itest

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/internal/enginetest/must"
	"github.com/go-fasteners/fasteners/postgres"
	"github.com/jackc/pgx/v5"
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
	must.Succeed(t, db.Close(background))
	<-held.Done()
	must.Fail(t, context.Cause(held), fasteners.ErrLost)
	must.Fail(t, context.Cause(held), postgres.ErrClosed)
	must.Fail(t, <-waiter, postgres.ErrClosed)
	must.Fail(t, release(), fasteners.ErrLost)
	awaitLocks(t, s.Connect(t), t.Name(), 0, 0)
	must.Succeed(t, db.Close(background))
	var none context.Context
	must.Fail(t, db.Close(none), fs.ErrInvalid)
}

// TestCloseWaits checks that closing the DB waits for a function that uses a connection, for as
// long as the context allows.
func TestCloseWaits(t *testing.T) {
	s := commonServer(t)
	db := newDB(t, s)
	err := fasteners.WithLock(background, postgres.NewLock(db, t.Name()), func(held context.Context) error {
		return postgres.InTx(held, func(pgx.Tx) error {
			ctx, cancel := context.WithTimeout(background, 10*time.Millisecond)
			defer cancel()
			err := db.Close(ctx)
			must.Fail(t, err, context.DeadlineExceeded)
			var pathErr *fs.PathError
			if !errors.As(err, &pathErr) || pathErr.Op != "close" || pathErr.Path != "database" || !os.IsTimeout(err) {
				t.Error(err)
			}
			return nil
		})
	})
	must.Fail(t, err, postgres.ErrClosed)
	must.Succeed(t, db.Close(background))
}
