package itest

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/internal/enginetest/faultproxy"
	"github.com/go-fasteners/fasteners/internal/enginetest/must"
	"github.com/go-fasteners/fasteners/internal/enginetest/process"
	"github.com/go-fasteners/fasteners/postgres"
	"github.com/go-fasteners/fasteners/postgres/itest/server"
	"github.com/jackc/pgx/v5"
)

// runHolder acquires the lock of a name on a server, and looks at the context of the hold again
// and again. When that is done, it prints when it has last found it not to be, and what the
// release returns.
func runHolder(args []string) error {
	config, err := pgx.ParseConfig(args[0])
	if err != nil {
		return err
	}
	fmt.Println("begins")
	held, release, err := postgres.NewLock(postgres.New(config, postgres.WithTTL(shortTTL)), args[1]).Hold(background)
	if err != nil {
		return err
	}
	fmt.Println("held")
	var last time.Time
	for {
		now := time.Now()
		if held.Err() != nil {
			break
		}
		last = now
	}
	told, released := errors.Is(context.Cause(held), fasteners.ErrLost), errors.Is(release(), fasteners.ErrLost)
	fmt.Println(last.UnixNano(), told, released)
	return nil
}

// startHolder starts a process that acquires the lock with the name of the test.
func startHolder(t *testing.T, s *server.Server) *process.Process {
	t.Helper()
	p := process.NewSelf(t, "holder", s.Config("").ConnString(), t.Name())
	p.Expect(t, "begins")
	return p
}

func TestKilledHolder(t *testing.T) {
	t.Parallel()
	s := commonServer(t)
	h := startHolder(t, s)
	h.Expect(t, "held")
	lock := postgres.NewLock(newDB(t, s, postgres.WithTTL(shortTTL)), t.Name())
	acquired := must.Go(func() error { return lock.Acquire(background) })
	awaitLocks(t, s.Connect(t), t.Name(), 1, 1)
	h.Kill()
	must.Succeed(t, <-acquired)
	must.Succeed(t, lock.Release())
}

// TestKilledWaiter checks that the server notices that the process of a waiter has exited.
func TestKilledWaiter(t *testing.T) {
	t.Parallel()
	s := commonServer(t)
	admin := s.Connect(t)
	lock := postgres.NewLock(newDB(t, s), t.Name())
	must.Succeed(t, lock.Acquire(background))
	h := startHolder(t, s)
	awaitLocks(t, admin, t.Name(), 1, 1)
	h.Kill()
	awaitLocks(t, admin, t.Name(), 1, 0)
	must.Succeed(t, lock.Release())
}

// TestStoppedHolder checks that a process that was stopped for longer than the TTL finds its
// context done with the first look.
func TestStoppedHolder(t *testing.T) {
	t.Parallel()
	s := commonServer(t)
	lock := postgres.NewLock(newDB(t, s), t.Name())
	h := startHolder(t, s)
	h.Expect(t, "held")
	must.Succeed(t, h.Stop())
	must.Succeed(t, lock.Acquire(background))
	acquired := time.Now()
	must.Succeed(t, h.Continue())
	var last int64
	var told, released bool
	line, _ := h.Line()
	if _, err := fmt.Sscan(line, &last, &told, &released); err != nil {
		t.Fatal(line, err)
	}
	if last >= acquired.UnixNano() || !told || !released {
		t.Errorf("the holder has found that it holds the lock %v after another process had acquired it; told %v, release %v",
			time.Unix(0, last).Sub(acquired), told, released)
	}
	must.Succeed(t, lock.Release())
}

// TestServerStartsAnew checks that no lock is granted after the server has started anew, as long
// as a holder that is cut off may still believe in its lock.
func TestServerStartsAnew(t *testing.T) {
	for _, test := range []struct {
		name  string
		crash func(*testing.T, *server.Server)
	}{
		{"immediate restart", func(t *testing.T, s *server.Server) { must.Succeed(t, s.Restart()) }},
		{"a process of the server crashes", func(t *testing.T, s *server.Server) {
			var pid int
			must.Succeed(t, s.Connect(t).QueryRow(background, `SELECT pg_backend_pid()`).Scan(&pid))
			must.Succeed(t, syscall.Kill(pid, syscall.SIGKILL))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			// If it took the server longer than that to start anew, this would prove nothing.
			const ttl = 12 * time.Second
			s := server.New(t)
			p := faultproxy.New(t, s.Addr())
			far := postgres.NewLock(newDBAt(t, s, p.Addr(), postgres.WithTTL(ttl)), t.Name())
			near := postgres.NewLock(newDB(t, s, postgres.WithTTL(ttl)), t.Name())
			held, release, err := far.Hold(background)
			must.Succeed(t, err)
			p.Forward(false, false)
			test.crash(t, s)
			next, releaseNext, err := near.Hold(background) // after attempts while the server is away
			must.Succeed(t, err)
			mustBeTold(t, held)
			must.Fail(t, release(), fasteners.ErrLost)
			first, _ := fasteners.Token(held)
			if second, _ := fasteners.Token(next); second <= first {
				t.Errorf("token %d after %d", second, first)
			}
			must.Succeed(t, releaseNext())
		})
	}
}

// TestRestartTells checks that a holder that is not cut off gets to know that the server has ended.
func TestRestartTells(t *testing.T) {
	t.Parallel()
	s := server.New(t)
	lock := postgres.NewLock(newDB(t, s, postgres.WithTTL(time.Minute)), t.Name())
	// Nothing is granted in the first minute, but a try tells that there is nothing wrong.
	ok, err := lock.TryAcquire(background)
	if ok || err != nil {
		t.Fatal(ok, err)
	}
	lock = postgres.NewLock(newDB(t, s, postgres.WithTTL(shortTTL)), t.Name())
	held, release, err := lock.Hold(background)
	must.Succeed(t, err)
	s.Stop()
	<-held.Done()
	must.Fail(t, release(), fasteners.ErrLost)
	if _, err := lock.TryAcquire(background); err == nil {
		t.Error("a try does not tell that the server is away")
	}
	ctx, cancel := context.WithTimeout(background, 200*time.Millisecond)
	defer cancel()
	err = lock.Acquire(ctx)
	must.Fail(t, err, context.DeadlineExceeded)
	must.Fail(t, err, syscall.ECONNREFUSED) // why it has waited
	acquired := must.Go(func() error { return lock.Acquire(background) })
	must.Succeed(t, s.Restart())
	must.Succeed(t, <-acquired)
	must.Succeed(t, lock.Release())
}
