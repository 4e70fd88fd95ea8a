package itest

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/internal/enginetest/must"
	"github.com/go-fasteners/fasteners/postgres"
	"github.com/jackc/pgx/v5"
)

func TestCancelLeavesNothing(t *testing.T) {
	s := commonServer(t)
	admin := s.Connect(t)
	holder := postgres.NewReaderWriterLock(newDB(t, s), t.Name())
	must.Succeed(t, holder.AcquireReadLock(background))
	waiter := postgres.NewReaderWriterLock(newDB(t, s), t.Name())
	for range 10 {
		ctx, cancel := context.WithCancelCause(background)
		done := must.Go(func() error { return waiter.AcquireWriteLock(ctx) })
		awaitLocks(t, admin, t.Name(), 1, 1)
		why := errors.New("why")
		cancel(why)
		err := <-done
		must.Fail(t, err, context.Canceled)
		must.Fail(t, err, why)
		awaitLocks(t, admin, t.Name(), 1, 0)
	}
	must.Succeed(t, holder.ReleaseReadLock())
	must.Succeed(t, waiter.AcquireWriteLock(background))
	must.Succeed(t, waiter.ReleaseWriteLock())
}

// TestPlaceInQueue checks that a process keeps its place in the queue of the server when its
// first waiter gives up.
func TestPlaceInQueue(t *testing.T) {
	s := commonServer(t)
	admin := s.Connect(t)
	holder := postgres.NewLock(newDB(t, s), t.Name())
	must.Succeed(t, holder.Acquire(background))
	db := newDB(t, s)
	first := postgres.NewLock(db, t.Name())
	ctx, cancel := context.WithCancel(background)
	gaveUp := must.Go(func() error { return first.Acquire(ctx) })
	awaitLocks(t, admin, t.Name(), 1, 1)
	second := must.Go(func() error { return first.Acquire(background) })
	awaitBlocked(t, 2)
	last := postgres.NewLock(newDB(t, s), t.Name())
	lastDone := must.Go(func() error { return last.Acquire(background) })
	awaitLocks(t, admin, t.Name(), 1, 2)
	cancel()
	must.Fail(t, <-gaveUp, context.Canceled)
	must.Succeed(t, holder.Release())
	must.Succeed(t, <-second)
	must.Block(t, "two holders", lastDone)
	must.Succeed(t, first.Release())
	must.Succeed(t, <-lastDone)
	must.Succeed(t, last.Release())
}

func TestReadersJoin(t *testing.T) {
	// For a shorter time readers of one process become holders without that the server is asked.
	const unasked = 100 * time.Millisecond
	s := commonServer(t)
	admin := s.Connect(t)
	db := newDB(t, s)
	reader := postgres.NewReaderWriterLock(db, t.Name())
	writer := postgres.NewReaderWriterLock(newDB(t, s), t.Name())
	must.Succeed(t, reader.AcquireReadLock(background))
	time.Sleep(unasked) // the server is asked from now on
	must.Succeed(t, reader.AcquireReadLock(background))
	awaitLocks(t, admin, t.Name(), 1, 0)
	ctx, cancel := context.WithCancel(background)
	gaveUp := must.Go(func() error { return writer.AcquireWriteLock(ctx) })
	awaitLocks(t, admin, t.Name(), 1, 1)
	time.Sleep(unasked)
	if ok, err := reader.TryAcquireReadLock(background); ok || err != nil {
		t.Fatal("a reader has overtaken a writer of another process", ok, err)
	}
	third := must.Go(func() error { return reader.AcquireReadLock(background) })
	must.Block(t, "a reader has overtaken a writer of another process", third)
	cancel()
	must.Fail(t, <-gaveUp, context.Canceled)
	must.Succeed(t, <-third)
	for range 3 {
		must.Succeed(t, reader.ReleaseReadLock())
	}
	must.Fail(t, reader.ReleaseReadLock(), fasteners.ErrNotAcquired)
}

func TestErrors(t *testing.T) {
	s := commonServer(t)
	db := newDB(t, s)
	closed := newDB(t, s)
	must.Succeed(t, closed.Close(background))
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
		{"margin", postgres.NewLock(newDB(t, s, postgres.WithMargin(ttl/2)), "x"), fs.ErrInvalid},
		{"negative margin", postgres.NewLock(newDB(t, s, postgres.WithMargin(-1)), "x"), fs.ErrInvalid},
		{"sequence", postgres.NewLock(newDB(t, s, postgres.WithSequence("a.b.c")), "x"), fs.ErrInvalid},
		{"closed", postgres.NewLock(closed, "x"), postgres.ErrClosed},
		{"wrong user", postgres.NewLock(postgres.New(wrongUser), "x"), nil},
	} {
		err := test.lock.Acquire(background)
		var pathErr *fs.PathError
		if !errors.As(err, &pathErr) || pathErr.Op != "acquire" || pathErr.Path != test.lock.Name() ||
			test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
		if _, err := test.lock.TryAcquire(background); err == nil {
			t.Errorf("%s: TryAcquire does not fail", test.name)
		}
	}
	must.Fail(t, postgres.NewLock(db, "x").Release(), fasteners.ErrNotAcquired)
	var none context.Context
	must.Fail(t, postgres.NewLock(db, "x").Acquire(none), fs.ErrInvalid)
}

func TestSequence(t *testing.T) {
	s := commonServer(t)
	admin := s.Connect(t)
	_, err := admin.Exec(background, `
		CREATE SEQUENCE caching CACHE 2;
		CREATE SEQUENCE cycling MAXVALUE 10 CYCLE;
		CREATE SEQUENCE falling INCREMENT -1`)
	must.Succeed(t, err)
	for _, name := range []string{"caching", "cycling", "public.falling", "nowhere.token"} {
		lock := postgres.NewLock(newDB(t, s, postgres.WithSequence(name)), t.Name())
		if err := lock.Acquire(background); err == nil {
			t.Errorf("sequence %s is accepted", name)
		} else {
			t.Log(err)
		}
	}
	lock := postgres.NewLock(newDB(t, s, postgres.WithSequence(`it's "odd"`)), t.Name())
	must.Succeed(t, fasteners.WithLock(background, lock, func(ctx context.Context) error {
		if token, ok := fasteners.Token(ctx); !ok || token != 1 {
			t.Error(token, ok)
		}
		return nil
	}))
	lock = postgres.NewLock(newDB(t, s, postgres.WithSequence("")), t.Name())
	must.Succeed(t, fasteners.WithLock(background, lock, func(ctx context.Context) error {
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
	must.Succeed(t, err)
	increment := func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE counter SET n = n + 1`)
		return err
	}
	want := func(want int) {
		t.Helper()
		var n int
		must.Succeed(t, admin.QueryRow(background, `SELECT n FROM counter`).Scan(&n))
		if n != want {
			t.Fatalf("counter is %d, want %d", n, want)
		}
	}
	lock := postgres.NewLock(newDB(t, s), t.Name())
	err = postgres.InTx(background, func(pgx.Tx) error { return nil })
	must.Fail(t, err, fasteners.ErrNotAcquired)
	if got := err.Error(); got != "transaction database: lock is not acquired" {
		t.Error(got)
	}
	held, release, err := lock.Hold(background)
	must.Succeed(t, err)
	must.Succeed(t, postgres.InTx(held, func(tx pgx.Tx) error { return increment(held, tx) }))
	want(1)
	own := errors.New("own")
	must.Fail(t, postgres.InTx(held, func(tx pgx.Tx) error { return errors.Join(increment(held, tx), own) }), own)
	want(1)
	func() {
		defer func() { _ = recover() }()
		_ = postgres.InTx(held, func(tx pgx.Tx) error { _ = increment(held, tx); panic("in fn") })
	}()
	want(1)
	// A statement that is canceled does not cost the lock.
	ctx, cancel := context.WithTimeout(held, 50*time.Millisecond)
	defer cancel()
	must.Fail(t, postgres.InTx(ctx, func(tx pgx.Tx) error {
		_ = increment(ctx, tx)
		_, err := tx.Exec(ctx, `SELECT pg_sleep(60)`)
		return err
	}), context.DeadlineExceeded)
	want(1)
	must.Succeed(t, held.Err())
	// A loss.
	err = postgres.InTx(held, func(tx pgx.Tx) error {
		must.Succeed(t, increment(held, tx))
		terminateHolders(t, admin, t.Name())
		awaitLocks(t, admin, t.Name(), 0, 0)
		return nil
	})
	if err == nil {
		t.Fatal("committed without the lock")
	}
	want(1)
	<-held.Done()
	must.Fail(t, postgres.InTx(held, func(pgx.Tx) error { return nil }), fasteners.ErrLost)
	must.Fail(t, release(), fasteners.ErrLost)
	must.Fail(t, postgres.InTx(held, func(pgx.Tx) error { return nil }), fasteners.ErrNotAcquired)
}

// TestLongTransaction checks that a lock is not lost while a statement takes longer than the TTL,
// and that others that share the session can release their hold meanwhile.
func TestLongTransaction(t *testing.T) {
	t.Parallel()
	s := commonServer(t)
	lock := postgres.NewReaderWriterLock(newDB(t, s, postgres.WithTTL(time.Second)), t.Name())
	other, releaseOther, err := lock.HoldRead(background)
	must.Succeed(t, err)
	held, release, err := lock.HoldRead(background)
	must.Succeed(t, err)
	must.Succeed(t, postgres.InTx(held, func(tx pgx.Tx) error {
		released := must.Go(releaseOther)
		_, err := tx.Exec(held, `SELECT pg_sleep(3)`)
		must.Succeed(t, <-released)
		return err
	}))
	must.Succeed(t, held.Err())
	must.Succeed(t, release())
	<-other.Done()
}

// The timeout bounds the wait, and not the work. Its error tells a lock that is held from a
// server that does not answer.
func TestTimeout(t *testing.T) {
	s := commonServer(t)
	timeout := postgres.WithTimeout(50 * time.Millisecond)
	a := postgres.NewLock(newDB(t, s, postgres.WithTimeout(time.Minute)), t.Name())
	must.Succeed(t, fasteners.WithLock(background, a, func(ctx context.Context) error {
		if _, ok := ctx.Deadline(); ok {
			t.Error("the timeout is one of the work, too")
		}
		return nil
	}))
	must.Succeed(t, a.Acquire(background))
	isHeldError := func(lock *postgres.Lock) bool {
		t.Helper()
		err := lock.Acquire(background)
		must.Fail(t, err, context.DeadlineExceeded)
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
	must.Succeed(t, a.Release())
	if isHeldError(postgres.NewLock(newDBAt(t, s, "127.0.0.1:1", timeout), t.Name())) {
		t.Error("the error says that a lock is held whose server cannot be reached")
	}
	must.Fail(t, postgres.NewLock(newDB(t, s, postgres.WithTimeout(-1)), "x").Acquire(background), fs.ErrInvalid)
}

// A syncBuffer is a buffer that several goroutines write to.
type syncBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func TestLogger(t *testing.T) {
	s := commonServer(t)
	admin := s.Connect(t)
	var out syncBuffer
	logger := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	db := newDB(t, s, postgres.WithLogger(logger))
	lock := postgres.NewReaderWriterLock(db, t.Name())
	must.Succeed(t, fasteners.WithReadLock(background, lock, func(ctx context.Context) error {
		ok, err := lock.TryAcquireWriteLock(ctx)
		if ok {
			t.Error("a writer beside a reader")
		}
		return err
	}))
	held, release, err := lock.HoldWrite(background)
	must.Succeed(t, err)
	terminateHolders(t, admin, t.Name())
	<-held.Done()
	must.Fail(t, release(), fasteners.ErrLost)
	must.Succeed(t, db.Close(background)) // nothing logs any more
	for _, want := range []string{
		`level=DEBUG msg="fasteners: acquire" mode=shared waited=`,
		`level=DEBUG msg="fasteners: try to acquire" mode=exclusive acquired=false path=TestLogger`,
		`level=DEBUG msg="fasteners: release" path=TestLogger`,
		`level=WARN msg="fasteners: lost the lock" path=TestLogger error="lock was lost: FATAL: ` +
			`terminating connection due to administrator command`,
		`error="lock was lost: FATAL:`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the log does not have %s:\n%s", want, out.String())
		}
	}
}
