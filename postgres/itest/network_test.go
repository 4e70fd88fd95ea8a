package itest

import (
	"context"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/internal/enginetest/faultproxy"
	"github.com/go-fasteners/fasteners/internal/enginetest/must"
	"github.com/go-fasteners/fasteners/postgres"
	"github.com/jackc/pgx/v5"
)

// TestLastsLongerThanTTL checks that signs of life keep a lock, also over a slow network.
func TestLastsLongerThanTTL(t *testing.T) {
	t.Parallel()
	s := commonServer(t)
	p := faultproxy.New(t, s.Addr())
	p.Delay(shortTTL / 4)
	lock := postgres.NewLock(newDBAt(t, s, p.Addr(), postgres.WithTTL(shortTTL)), t.Name())
	held, release, err := lock.Hold(background)
	must.Succeed(t, err)
	select {
	case <-held.Done():
		t.Error(context.Cause(held))
	case <-time.After(3 * shortTTL):
	}
	must.Succeed(t, release())
}

func TestPartitions(t *testing.T) {
	s := commonServer(t)
	for _, test := range []struct {
		name              string
		requests, answers bool // are forwarded
		delay             time.Duration
	}{
		{"black hole", false, false, 0},
		{"nothing arrives at the server", false, true, 0},
		{"nothing comes back", true, false, 0},
		{"slow before", false, false, shortTTL / 4},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := faultproxy.New(t, s.Addr())
			p.Delay(test.delay)
			far := postgres.NewLock(newDBAt(t, s, p.Addr(), postgres.WithTTL(shortTTL)), t.Name())
			near := postgres.NewLock(newDB(t, s, postgres.WithTTL(shortTTL)), t.Name())
			held, release, err := far.Hold(background)
			must.Succeed(t, err)
			acquired := must.Go(func() error { return near.Acquire(background) })
			awaitLocks(t, s.Connect(t), t.Name(), 1, 1)
			p.Forward(test.requests, test.answers)
			must.Succeed(t, <-acquired)
			mustBeTold(t, held)
			must.Fail(t, release(), fasteners.ErrLost)
			p.Forward(true, true)
			must.Succeed(t, near.Release())
		})
	}
}

// TestHealed checks that a release after a partition tells the truth: if the session has
// survived, nobody else has had the lock.
func TestHealed(t *testing.T) {
	t.Parallel()
	s := commonServer(t)
	p := faultproxy.New(t, s.Addr())
	const ttl = 10 * time.Second // the test has a tenth of it to heal the partition
	far := postgres.NewLock(newDBAt(t, s, p.Addr(), postgres.WithTTL(ttl)), t.Name())
	held, release, err := far.Hold(background)
	must.Succeed(t, err)
	p.Forward(true, false) // the next sign of life arrives
	<-held.Done()
	must.Fail(t, context.Cause(held), fasteners.ErrLost)
	p.Forward(true, true)
	must.Succeed(t, release())
}

// TestWaiterCutOff checks that a waiter that cannot be reached does not keep the lock that it is
// granted.
func TestWaiterCutOff(t *testing.T) {
	t.Parallel()
	s := commonServer(t)
	admin := s.Connect(t)
	p := faultproxy.New(t, s.Addr())
	near := postgres.NewLock(newDB(t, s, postgres.WithTTL(shortTTL)), t.Name())
	must.Succeed(t, near.Acquire(background))
	far := postgres.NewLock(newDBAt(t, s, p.Addr(), postgres.WithTTL(shortTTL)), t.Name())
	ctx, cancel := context.WithCancel(background)
	acquired := must.Go(func() error { return far.Acquire(ctx) })
	awaitLocks(t, admin, t.Name(), 1, 1)
	p.Forward(false, false)
	must.Succeed(t, near.Release())
	must.Succeed(t, near.Acquire(background))
	must.Succeed(t, near.Release())
	cancel()
	must.Fail(t, <-acquired, context.Canceled)
}

// TestInTxCutOff checks that a transaction of a holder that is cut off is not committed.
func TestInTxCutOff(t *testing.T) {
	t.Parallel()
	s := commonServer(t)
	admin := s.Connect(t)
	_, err := admin.Exec(background, `CREATE TABLE cut_off (n int)`)
	must.Succeed(t, err)
	p := faultproxy.New(t, s.Addr())
	far := postgres.NewLock(newDBAt(t, s, p.Addr(), postgres.WithTTL(shortTTL)), t.Name())
	near := postgres.NewLock(newDB(t, s, postgres.WithTTL(shortTTL)), t.Name())
	held, release, err := far.Hold(background)
	must.Succeed(t, err)
	// With a context that does not end: the transaction itself must not go through.
	err = postgres.InTx(context.WithoutCancel(held), func(tx pgx.Tx) error {
		_, err := tx.Exec(background, `INSERT INTO cut_off VALUES (1)`)
		must.Succeed(t, err)
		p.Forward(false, false)
		must.Succeed(t, near.Acquire(background))
		mustBeTold(t, held)
		p.Forward(true, true)
		return nil
	})
	if err == nil {
		t.Error("committed after somebody else had the lock")
	}
	must.Fail(t, release(), fasteners.ErrLost)
	must.Succeed(t, near.Release())
	var n int
	must.Succeed(t, admin.QueryRow(background, `SELECT count(*) FROM cut_off`).Scan(&n))
	if n != 0 {
		t.Error("the row is there")
	}
}
