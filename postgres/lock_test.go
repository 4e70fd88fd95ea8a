package postgres_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/lockertest"
	"github.com/go-fasteners/fasteners/postgres"
	"github.com/jackc/pgx/v5"
)

// conformance runs the tests that any lock must pass. Of several DBs, that one is first in the queue whose
// statement arrives first at the server.
func conformance(t *testing.T, oneDB bool, newDBFor func(*testing.T) *postgres.DB) {
	s := commonServer(t)
	admin := s.Connect(t)
	lockertest.Test(t, lockertest.Locks{
		NewLock: func(t *testing.T, name string) fasteners.Locker { return postgres.NewLock(newDBFor(t), name) },
		NewReaderWriterLock: func(t *testing.T, name string) fasteners.ReaderWriterLocker {
			return postgres.NewReaderWriterLock(newDBFor(t), name)
		},
		Lose: func(t *testing.T, name string) {
			for _, b := range locksOf(t, admin, name) {
				if b.Granted {
					_, err := admin.Exec(background, "SELECT pg_terminate_backend($1)", int32(b.PID))
					must(t, err)
				}
			}
		},
		Tokens:   true,
		OneQueue: oneDB,
	})
}

func TestConformance(t *testing.T) {
	s := commonServer(t)
	t.Run("own DB", func(t *testing.T) {
		conformance(t, false, func(t *testing.T) *postgres.DB { return newDB(t, s) })
	})
	t.Run("one DB", func(t *testing.T) {
		db := newDB(t, s)
		conformance(t, true, func(*testing.T) *postgres.DB { return db })
	})
}

func TestWaitersShareConnection(t *testing.T) {
	s := commonServer(t)
	admin := s.Connect(t)
	db := newDB(t, s)
	other := postgres.NewLock(newDB(t, s), t.Name())
	must(t, other.Acquire(background))
	const n = 1000
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	results := make(chan error, n)
	lock := postgres.NewLock(db, t.Name())
	for range n {
		go func() { results <- lock.Acquire(ctx) }()
	}
	for db.Waiting(t.Name()) < n {
		time.Sleep(time.Millisecond)
	}
	awaitLocks(t, admin, t.Name(), 1, 1)
	// Half of them get it, one after the other, and the others give up.
	must(t, other.Release())
	for range n / 2 {
		must(t, <-results)
		must(t, lock.Release())
	}
	cancel()
	granted := 0
	for range n / 2 {
		if err := <-results; err == nil {
			granted++
			must(t, lock.Release())
		} else {
			wantErr(t, err, context.Canceled)
		}
	}
	if granted > 1 {
		t.Errorf("%d have acquired the lock after their context was done", granted)
	}
	awaitLocks(t, admin, t.Name(), 0, 0)
}

func TestCancelLeavesNothing(t *testing.T) {
	s := commonServer(t)
	admin := s.Connect(t)
	holder := postgres.NewReaderWriterLock(newDB(t, s), t.Name())
	must(t, holder.AcquireReadLock(background))
	waiter := postgres.NewReaderWriterLock(newDB(t, s), t.Name())
	for range 10 {
		ctx, cancel := context.WithCancelCause(background)
		done := goErr(func() error { return waiter.AcquireWriteLock(ctx) })
		awaitLocks(t, admin, t.Name(), 1, 1)
		why := errors.New("why")
		cancel(why)
		err := <-done
		wantErr(t, err, context.Canceled)
		wantErr(t, err, why)
		awaitLocks(t, admin, t.Name(), 1, 0)
	}
	must(t, holder.ReleaseReadLock())
	must(t, waiter.AcquireWriteLock(background))
	must(t, waiter.ReleaseWriteLock())
}

// TestPlaceInQueue checks that a process keeps its place in the queue of the server when its first waiter
// gives up.
func TestPlaceInQueue(t *testing.T) {
	s := commonServer(t)
	admin := s.Connect(t)
	holder := postgres.NewLock(newDB(t, s), t.Name())
	must(t, holder.Acquire(background))
	db := newDB(t, s)
	first := postgres.NewLock(db, t.Name())
	ctx, cancel := context.WithCancel(background)
	gaveUp := goErr(func() error { return first.Acquire(ctx) })
	awaitLocks(t, admin, t.Name(), 1, 1)
	second := goErr(func() error { return first.Acquire(background) })
	for db.Waiting(t.Name()) < 2 {
		time.Sleep(time.Millisecond)
	}
	last := postgres.NewLock(newDB(t, s), t.Name())
	lastDone := goErr(func() error { return last.Acquire(background) })
	awaitLocks(t, admin, t.Name(), 1, 2)
	cancel()
	wantErr(t, <-gaveUp, context.Canceled)
	must(t, holder.Release())
	must(t, <-second)
	mustBlock(t, lastDone)
	must(t, first.Release())
	must(t, <-lastDone)
	must(t, last.Release())
}

// TestProcessesTakeTurns checks that a process with many waiters does not keep another one waiting.
func TestProcessesTakeTurns(t *testing.T) {
	s := commonServer(t)
	admin := s.Connect(t)
	busy, db := postgres.NewLock(newDB(t, s), t.Name()), newDB(t, s)
	crowd := postgres.NewLock(db, t.Name())
	must(t, busy.Acquire(background))
	const n = 20
	results := make(chan error, n)
	for range n {
		go func() { results <- crowd.Acquire(background) }()
	}
	for db.Waiting(t.Name()) < n {
		time.Sleep(time.Millisecond)
	}
	for range n {
		awaitLocks(t, admin, t.Name(), 1, 1) // the crowd waits
		must(t, busy.Release())
		again := goErr(func() error { return busy.Acquire(background) })
		must(t, <-results)
		awaitLocks(t, admin, t.Name(), 1, 1) // busy waits
		must(t, crowd.Release())
		must(t, <-again)
	}
	must(t, busy.Release())
}

func TestReadersJoin(t *testing.T) {
	s := commonServer(t)
	admin := s.Connect(t)
	db := newDB(t, s)
	reader := postgres.NewReaderWriterLock(db, t.Name())
	writer := postgres.NewReaderWriterLock(newDB(t, s), t.Name())
	must(t, reader.AcquireReadLock(background))
	time.Sleep(2 * postgres.JoinTime) // the server is asked from now on
	must(t, reader.AcquireReadLock(background))
	awaitLocks(t, admin, t.Name(), 1, 0)
	ctx, cancel := context.WithCancel(background)
	gaveUp := goErr(func() error { return writer.AcquireWriteLock(ctx) })
	awaitLocks(t, admin, t.Name(), 1, 1)
	time.Sleep(2 * postgres.JoinTime)
	if ok, err := reader.TryAcquireReadLock(background); ok || err != nil {
		t.Fatal("a reader has overtaken a writer of another process", ok, err)
	}
	third := goErr(func() error { return reader.AcquireReadLock(background) })
	mustBlock(t, third)
	cancel()
	wantErr(t, <-gaveUp, context.Canceled)
	must(t, <-third)
	for range 3 {
		must(t, reader.ReleaseReadLock())
	}
	wantErr(t, reader.ReleaseReadLock(), fasteners.ErrNotAcquired)
}

func TestErrors(t *testing.T) {
	s := commonServer(t)
	db := newDB(t, s)
	closed := newDB(t, s)
	must(t, closed.Close(background))
	wrongUser := s.Config("")
	wrongUser.User = "nobody_by_that_name"
	for _, test := range []struct {
		name string
		lock *postgres.Lock
		want error
	}{
		{"no name", postgres.NewLock(db, ""), fs.ErrInvalid},
		{"nil DB", postgres.NewLock(nil, "x"), fs.ErrInvalid},
		{"nil configuration", postgres.NewLock(postgres.New(nil), "x"), fs.ErrInvalid},
		{"TTL", postgres.NewLock(newDB(t, s, postgres.WithTTL(time.Millisecond)), "x"), fs.ErrInvalid},
		{"margin", postgres.NewLock(newDB(t, s, postgres.WithMargin(testTTL/2)), "x"), fs.ErrInvalid},
		{"negative margin", postgres.NewLock(newDB(t, s, postgres.WithMargin(-1)), "x"), fs.ErrInvalid},
		{"sequence", postgres.NewLock(newDB(t, s, postgres.WithSequence("a.b.c")), "x"), fs.ErrInvalid},
		{"closed", postgres.NewLock(closed, "x"), postgres.ErrClosed},
		{"wrong user", postgres.NewLock(postgres.New(wrongUser), "x"), nil},
	} {
		err := test.lock.Acquire(background)
		var pathErr *fs.PathError
		if !errors.As(err, &pathErr) || pathErr.Op != "acquire" || pathErr.Path != test.lock.Name() || test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
		if _, err := test.lock.TryAcquire(background); err == nil {
			t.Errorf("%s: TryAcquire does not fail", test.name)
		}
	}
	wantErr(t, postgres.NewLock(db, "x").Release(), fasteners.ErrNotAcquired)
	var none context.Context
	wantErr(t, postgres.NewLock(db, "x").Acquire(none), fs.ErrInvalid)
}

// TestCloseLoses checks that closing the DB ends holds and waits.
func TestCloseLoses(t *testing.T) {
	s := commonServer(t)
	db := newDB(t, s)
	lock := postgres.NewLock(db, t.Name())
	held, release, err := lock.Hold(background)
	must(t, err)
	waiter := goErr(func() error { return lock.Acquire(background) })
	for db.Waiting(t.Name()) < 1 {
		time.Sleep(time.Millisecond)
	}
	must(t, db.Close(background))
	<-held.Done()
	wantErr(t, context.Cause(held), fasteners.ErrLost)
	wantErr(t, context.Cause(held), postgres.ErrClosed)
	wantErr(t, <-waiter, postgres.ErrClosed)
	wantErr(t, release(), fasteners.ErrLost)
	awaitLocks(t, s.Connect(t), t.Name(), 0, 0)
	must(t, db.Close(background))
	var none context.Context
	wantErr(t, db.Close(none), fs.ErrInvalid)
}

// TestCloseWaits checks that closing the DB waits for a function that uses a connection, for as long as the
// context allows.
func TestCloseWaits(t *testing.T) {
	s := commonServer(t)
	db := newDB(t, s)
	err := fasteners.WithLock(background, postgres.NewLock(db, t.Name()), func(held context.Context) error {
		return postgres.InTx(held, func(pgx.Tx) error {
			ctx, cancel := context.WithTimeout(background, 10*time.Millisecond)
			defer cancel()
			err := db.Close(ctx)
			wantErr(t, err, context.DeadlineExceeded)
			var pathErr *fs.PathError
			if !errors.As(err, &pathErr) || pathErr.Op != "close" || pathErr.Path != "database" || !os.IsTimeout(err) {
				t.Error(err)
			}
			return nil
		})
	})
	wantErr(t, err, postgres.ErrClosed)
	must(t, db.Close(background))
}

func TestSequence(t *testing.T) {
	s := commonServer(t)
	admin := s.Connect(t)
	_, err := admin.Exec(background, `CREATE SEQUENCE caching CACHE 2; CREATE SEQUENCE cycling MAXVALUE 10 CYCLE; CREATE SEQUENCE falling INCREMENT -1`)
	must(t, err)
	for _, name := range []string{"caching", "cycling", "public.falling", "nowhere.token"} {
		lock := postgres.NewLock(newDB(t, s, postgres.WithSequence(name)), t.Name())
		if err := lock.Acquire(background); err == nil {
			t.Errorf("sequence %s is accepted", name)
		} else {
			t.Log(err)
		}
	}
	lock := postgres.NewLock(newDB(t, s, postgres.WithSequence(`it's "odd"`)), t.Name())
	must(t, fasteners.WithLock(background, lock, func(ctx context.Context) error {
		if token, ok := fasteners.Token(ctx); !ok || token != 1 {
			t.Error(token, ok)
		}
		return nil
	}))
	lock = postgres.NewLock(newDB(t, s, postgres.WithSequence("")), t.Name())
	must(t, fasteners.WithLock(background, lock, func(ctx context.Context) error {
		if token, ok := fasteners.Token(ctx); ok {
			t.Error(token)
		}
		return nil
	}))
}

func TestInTx(t *testing.T) {
	s := commonServer(t)
	admin := s.Connect(t)
	_, err := admin.Exec(background, `CREATE TABLE counter (n int); INSERT INTO counter VALUES (0)`)
	must(t, err)
	increment := func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE counter SET n = n + 1`)
		return err
	}
	want := func(want int) {
		t.Helper()
		var n int
		must(t, admin.QueryRow(background, `SELECT n FROM counter`).Scan(&n))
		if n != want {
			t.Fatalf("counter is %d, want %d", n, want)
		}
	}
	lock := postgres.NewLock(newDB(t, s), t.Name())
	err = postgres.InTx(background, func(pgx.Tx) error { return nil })
	wantErr(t, err, fasteners.ErrNotAcquired)
	if got := err.Error(); got != "transaction database: lock is not acquired" {
		t.Error(got)
	}
	held, release, err := lock.Hold(background)
	must(t, err)
	must(t, postgres.InTx(held, func(tx pgx.Tx) error { return increment(held, tx) }))
	want(1)
	own := errors.New("own")
	wantErr(t, postgres.InTx(held, func(tx pgx.Tx) error { return errors.Join(increment(held, tx), own) }), own)
	want(1)
	func() {
		defer func() { _ = recover() }()
		_ = postgres.InTx(held, func(tx pgx.Tx) error { _ = increment(held, tx); panic("in fn") })
	}()
	want(1)
	// A statement that is canceled does not cost the lock.
	ctx, cancel := context.WithTimeout(held, 50*time.Millisecond)
	defer cancel()
	wantErr(t, postgres.InTx(ctx, func(tx pgx.Tx) error {
		_ = increment(ctx, tx)
		_, err := tx.Exec(ctx, `SELECT pg_sleep(60)`)
		return err
	}), context.DeadlineExceeded)
	want(1)
	must(t, held.Err())
	// A loss.
	err = postgres.InTx(held, func(tx pgx.Tx) error {
		must(t, increment(held, tx))
		_, err := admin.Exec(background, "SELECT pg_terminate_backend($1)", int32(locksOf(t, admin, t.Name())[0].PID))
		must(t, err)
		awaitLocks(t, admin, t.Name(), 0, 0)
		return nil
	})
	if err == nil {
		t.Fatal("committed without the lock")
	}
	want(1)
	<-held.Done()
	wantErr(t, postgres.InTx(held, func(pgx.Tx) error { return nil }), fasteners.ErrLost)
	wantErr(t, release(), fasteners.ErrLost)
	wantErr(t, postgres.InTx(held, func(pgx.Tx) error { return nil }), fasteners.ErrNotAcquired)
}

// TestLongTransaction checks that a lock is not lost while a statement takes longer than the TTL, and
// that others that share the session can release their hold meanwhile.
func TestLongTransaction(t *testing.T) {
	t.Parallel()
	s := commonServer(t)
	lock := postgres.NewReaderWriterLock(newDB(t, s, postgres.WithTTL(time.Second)), t.Name())
	other, releaseOther, err := lock.HoldRead(background)
	must(t, err)
	held, release, err := lock.HoldRead(background)
	must(t, err)
	must(t, postgres.InTx(held, func(tx pgx.Tx) error {
		released := goErr(releaseOther)
		_, err := tx.Exec(held, `SELECT pg_sleep(3)`)
		must(t, <-released)
		return err
	}))
	must(t, held.Err())
	must(t, release())
	<-other.Done()
}

// The timeout bounds the wait, and not the work. Its error tells a lock that is held from a server that does not
// answer.
func TestTimeout(t *testing.T) {
	s := commonServer(t)
	timeout := postgres.WithTimeout(50 * time.Millisecond)
	a := postgres.NewLock(newDB(t, s, postgres.WithTimeout(time.Minute)), t.Name())
	must(t, fasteners.WithLock(background, a, func(ctx context.Context) error {
		if _, ok := ctx.Deadline(); ok {
			t.Error("the timeout is one of the work, too")
		}
		return nil
	}))
	must(t, a.Acquire(background))
	isHeldError := func(lock *postgres.Lock) bool {
		t.Helper()
		err := lock.Acquire(background)
		wantErr(t, err, context.DeadlineExceeded)
		var held *fasteners.HeldError
		return errors.As(err, &held)
	}
	other := newDB(t, s, timeout)
	for range 100 {
		if isHeldError(postgres.NewLock(other, t.Name())) {
			break // the first ones may not have connected in time
		}
	}
	for range 2 {
		if !isHeldError(postgres.NewLock(other, t.Name())) {
			t.Error("the error does not say that the lock is held")
		}
	}
	must(t, a.Release())
	if isHeldError(postgres.NewLock(newDBAt(t, s, "127.0.0.1:1", timeout), t.Name())) {
		t.Error("the error says that a lock is held whose server cannot be reached")
	}
	wantErr(t, postgres.NewLock(newDB(t, s, postgres.WithTimeout(-1)), "x").Acquire(background), fs.ErrInvalid)
}
