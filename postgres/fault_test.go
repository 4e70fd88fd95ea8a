package postgres_test

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/postgres"
	"github.com/go-fasteners/fasteners/postgres/internal/pgtest"
	"github.com/jackc/pgx/v5"
)

// shortTTL is the TTL of tests in which a lock is lost.
const shortTTL = 2 * time.Second

// mustBeTold checks that a holder has been told of its loss. It is called when somebody else has just
// acquired the lock.
func mustBeTold(t *testing.T, held context.Context) {
	t.Helper()
	if held.Err() == nil {
		t.Error("somebody else has the lock, and the holder has not been told")
	}
	wantErr(t, context.Cause(held), fasteners.ErrLost)
}

func TestTerminated(t *testing.T) {
	s := commonServer(t)
	admin := s.Connect(t)
	lock := postgres.NewLock(newDB(t, s), t.Name())
	held, release, err := lock.Hold(background)
	must(t, err)
	_, err = admin.Exec(background, "SELECT pg_terminate_backend($1)", int32(locksOf(t, admin, t.Name())[0].PID))
	must(t, err)
	<-held.Done()
	wantErr(t, context.Cause(held), fasteners.ErrLost)
	must(t, lock.Acquire(background)) // through the same value
	wantErr(t, release(), fasteners.ErrLost)
	wantErr(t, release(), fasteners.ErrNotAcquired)
	must(t, lock.Release())
}

// TestLastsLongerThanTTL checks that signs of life keep a lock, also over a slow network.
func TestLastsLongerThanTTL(t *testing.T) {
	t.Parallel()
	s := commonServer(t)
	p := pgtest.NewProxy(t, s.Addr)
	p.Delay(shortTTL / 4)
	lock := postgres.NewLock(newDBAt(t, s, p.Addr, postgres.WithTTL(shortTTL)), t.Name())
	held, release, err := lock.Hold(background)
	must(t, err)
	select {
	case <-held.Done():
		t.Error(context.Cause(held))
	case <-time.After(3 * shortTTL):
	}
	must(t, release())
}

func TestPartitions(t *testing.T) {
	s := commonServer(t)
	for _, test := range []struct {
		name     string
		up, down bool // dropped
		delay    time.Duration
	}{
		{"black hole", true, true, 0},
		{"nothing arrives at the server", true, false, 0},
		{"nothing comes back", false, true, 0},
		{"slow before", true, true, shortTTL / 4},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := pgtest.NewProxy(t, s.Addr)
			p.Delay(test.delay)
			far := postgres.NewLock(newDBAt(t, s, p.Addr, postgres.WithTTL(shortTTL)), t.Name())
			near := postgres.NewLock(newDB(t, s, postgres.WithTTL(shortTTL)), t.Name())
			held, release, err := far.Hold(background)
			must(t, err)
			acquired := goErr(func() error { return near.Acquire(background) })
			awaitLocks(t, s.Connect(t), t.Name(), 1, 1)
			p.Drop(test.up, test.down)
			must(t, <-acquired)
			mustBeTold(t, held)
			wantErr(t, release(), fasteners.ErrLost)
			p.Drop(false, false)
			must(t, near.Release())
		})
	}
}

// TestHealed checks that a release after a partition tells the truth: if the session has survived, nobody
// else has had the lock.
func TestHealed(t *testing.T) {
	t.Parallel()
	s := commonServer(t)
	p := pgtest.NewProxy(t, s.Addr)
	const ttl = 10 * time.Second // the test has a tenth of it to heal the partition
	far := postgres.NewLock(newDBAt(t, s, p.Addr, postgres.WithTTL(ttl)), t.Name())
	held, release, err := far.Hold(background)
	must(t, err)
	p.Drop(false, true) // the next sign of life arrives
	<-held.Done()
	wantErr(t, context.Cause(held), fasteners.ErrLost)
	p.Drop(false, false)
	must(t, release())
}

// TestWaiterCutOff checks that a waiter that cannot be reached does not keep the lock that it is granted.
func TestWaiterCutOff(t *testing.T) {
	t.Parallel()
	s := commonServer(t)
	admin := s.Connect(t)
	p := pgtest.NewProxy(t, s.Addr)
	near := postgres.NewLock(newDB(t, s, postgres.WithTTL(shortTTL)), t.Name())
	must(t, near.Acquire(background))
	far := postgres.NewLock(newDBAt(t, s, p.Addr, postgres.WithTTL(shortTTL)), t.Name())
	ctx, cancel := context.WithCancel(background)
	acquired := goErr(func() error { return far.Acquire(ctx) })
	awaitLocks(t, admin, t.Name(), 1, 1)
	p.Drop(true, true)
	must(t, near.Release())
	must(t, near.Acquire(background))
	must(t, near.Release())
	cancel()
	wantErr(t, <-acquired, context.Canceled)
}

// TestInTxCutOff checks that a transaction of a holder that is cut off is not committed.
func TestInTxCutOff(t *testing.T) {
	t.Parallel()
	s := commonServer(t)
	admin := s.Connect(t)
	_, err := admin.Exec(background, `CREATE TABLE cut_off (n int)`)
	must(t, err)
	p := pgtest.NewProxy(t, s.Addr)
	far := postgres.NewLock(newDBAt(t, s, p.Addr, postgres.WithTTL(shortTTL)), t.Name())
	near := postgres.NewLock(newDB(t, s, postgres.WithTTL(shortTTL)), t.Name())
	held, release, err := far.Hold(background)
	must(t, err)
	// With a context that does not end: the transaction itself must not go through.
	err = postgres.InTx(context.WithoutCancel(held), func(tx pgx.Tx) error {
		_, err := tx.Exec(background, `INSERT INTO cut_off VALUES (1)`)
		must(t, err)
		p.Drop(true, true)
		must(t, near.Acquire(background))
		mustBeTold(t, held)
		p.Drop(false, false)
		return nil
	})
	if err == nil {
		t.Error("committed after somebody else had the lock")
	}
	wantErr(t, release(), fasteners.ErrLost)
	must(t, near.Release())
	var n int
	must(t, admin.QueryRow(background, `SELECT count(*) FROM cut_off`).Scan(&n))
	if n != 0 {
		t.Error("the row is there")
	}
}

// TestServerStartsAnew checks that no lock is granted after the server has started anew, as long as a
// holder that is cut off may still believe in its lock.
func TestServerStartsAnew(t *testing.T) {
	for _, test := range []struct {
		name  string
		crash func(*testing.T, *pgtest.Server)
	}{
		{"immediate restart", func(t *testing.T, s *pgtest.Server) { must(t, s.Restart()) }},
		{"a process of the server crashes", func(t *testing.T, s *pgtest.Server) {
			var pid int
			must(t, s.Connect(t).QueryRow(background, `SELECT pg_backend_pid()`).Scan(&pid))
			must(t, syscall.Kill(pid, syscall.SIGKILL))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			// If it took the server longer than that to start anew, this would prove nothing.
			const ttl = 12 * time.Second
			s := pgtest.Start(t)
			p := pgtest.NewProxy(t, s.Addr)
			far := postgres.NewLock(newDBAt(t, s, p.Addr, postgres.WithTTL(ttl)), t.Name())
			near := postgres.NewLock(newDB(t, s, postgres.WithTTL(ttl)), t.Name())
			held, release, err := far.Hold(background)
			must(t, err)
			p.Drop(true, true)
			test.crash(t, s)
			next, releaseNext, err := near.Hold(background) // after attempts while the server is away
			must(t, err)
			mustBeTold(t, held)
			wantErr(t, release(), fasteners.ErrLost)
			first, _ := fasteners.Token(held)
			if second, _ := fasteners.Token(next); second <= first {
				t.Errorf("token %d after %d", second, first)
			}
			must(t, releaseNext())
		})
	}
}

// TestRestartTells checks that a holder that is not cut off gets to know that the server has ended.
func TestRestartTells(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t)
	lock := postgres.NewLock(newDB(t, s, postgres.WithTTL(time.Minute)), t.Name())
	// Nothing is granted in the first minute, but a try tells that there is nothing wrong.
	ok, err := lock.TryAcquire(background)
	if ok || err != nil {
		t.Fatal(ok, err)
	}
	lock = postgres.NewLock(newDB(t, s, postgres.WithTTL(shortTTL)), t.Name())
	held, release, err := lock.Hold(background)
	must(t, err)
	s.Stop()
	<-held.Done()
	wantErr(t, release(), fasteners.ErrLost)
	if _, err := lock.TryAcquire(background); err == nil {
		t.Error("a try does not tell that the server is away")
	}
	ctx, cancel := context.WithTimeout(background, 200*time.Millisecond)
	defer cancel()
	err = lock.Acquire(ctx)
	wantErr(t, err, context.DeadlineExceeded)
	wantErr(t, err, syscall.ECONNREFUSED) // why it has waited
	acquired := goErr(func() error { return lock.Acquire(background) })
	must(t, s.Restart())
	must(t, <-acquired)
	must(t, lock.Release())
}

func TestStandby(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t)
	s.Stop()
	must(t, os.WriteFile(filepath.Join(s.Data(), "standby.signal"), nil, 0o600))
	must(t, pgtest.Chown(filepath.Join(s.Data(), "standby.signal")))
	must(t, s.Restart())
	err := postgres.NewLock(newDB(t, s), t.Name()).Acquire(background)
	if err == nil {
		t.Fatal("a standby grants a lock")
	}
	t.Log(err)
}
