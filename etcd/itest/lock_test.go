package itest

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/etcd"
	"github.com/go-fasteners/fasteners/internal/enginetest/must"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestLock(t *testing.T) {
	c := newClient(t, embedded(t))
	s := newSession(t, c)
	a, b := etcd.NewLock(s, "lock"), etcd.NewLock(s, "lock")
	must.Succeed(t, a.Acquire(background))
	if !a.Acquired() || b.Acquired() || a.Name() != "lock" {
		t.Error(a.Acquired(), b.Acquired(), a.Name())
	}
	if ok, err := b.TryAcquire(background); ok || err != nil {
		t.Fatal(ok, err)
	}
	second := must.Go(func() error { return b.Acquire(background) })
	third := must.Go(func() error { return a.Acquire(background) })
	must.Block(t, "two holders", second)
	must.Block(t, "two holders through one value", third)
	must.Succeed(t, a.Release())
	select {
	case err := <-second:
		must.Succeed(t, err)
		must.Block(t, "two holders", third)
		must.Succeed(t, b.Release())
		must.Succeed(t, <-third)
		must.Succeed(t, a.Release())
	case err := <-third:
		must.Succeed(t, err)
		must.Block(t, "two holders", second)
		must.Succeed(t, a.Release())
		must.Succeed(t, <-second)
		must.Succeed(t, b.Release())
	}
	for _, l := range []*etcd.Lock{a, b} {
		if err := l.Release(); !errors.Is(err, fasteners.ErrNotAcquired) {
			t.Error(err)
		}
	}
	if ok, err := b.TryAcquire(background); !ok || err != nil {
		t.Fatal(ok, err)
	}
	must.Succeed(t, b.Release())
	if keys := keysOf(t, c, "lock"); len(keys) > 0 {
		t.Errorf("left: %q", keys)
	}
}

// TestOrder checks that waiters of different sessions are served in order of arrival, readers
// together.
func TestOrder(t *testing.T) {
	addr := embedded(t)
	admin := newClient(t, addr)
	sessions := []*etcd.Session{newSession(t, admin), newSession(t, newClient(t, addr))}
	first := etcd.NewReaderWriterLock(sessions[0], "order")
	must.Succeed(t, first.AcquireReadLock(background))
	got := make(chan int)
	var release []func() error
	wants := []bool{true, false, false, true, false} // to write
	for i, write := range wants {
		l := etcd.NewReaderWriterLock(sessions[i%2], "order")
		acquire := l.AcquireReadLock
		if write {
			acquire = l.AcquireWriteLock
			release = append(release, l.ReleaseWriteLock)
		} else {
			release = append(release, l.ReleaseReadLock)
		}
		go func() {
			if err := acquire(background); err != nil {
				t.Error(err)
			}
			got <- i
		}()
		awaitKeys(t, admin, "order", i+2)
	}
	if ok, err := first.TryAcquireReadLock(background); ok || err != nil {
		t.Error("a reader has overtaken a writer: ", ok, err)
	}
	must.Block(t, "a waiter does not wait", got)
	must.Succeed(t, first.ReleaseReadLock())
	want := func(is ...int) {
		t.Helper()
		seen := map[int]bool{}
		for range is {
			seen[<-got] = true
		}
		for _, i := range is {
			if !seen[i] {
				t.Fatalf("not %d, but %v", i, seen)
			}
		}
		must.Block(t, "too many holders", got)
		for _, i := range is {
			must.Succeed(t, release[i]())
		}
	}
	want(0)
	want(1, 2)
	want(3)
	want(4)
}

func TestToken(t *testing.T) {
	s := newSession(t, newClient(t, embedded(t)))
	var last int64
	for i := range 5 {
		l := etcd.NewLock(s, "token")
		must.Succeed(t, fasteners.WithLock(background, l, func(ctx context.Context) error {
			token, ok := fasteners.Token(ctx)
			if !ok || token <= last {
				t.Error(i, token, ok, last)
			}
			last = token
			return nil
		}))
	}
}

// TestErrors checks what is refused without asking etcd, and what etcd refuses for good.
func TestErrors(t *testing.T) {
	c := newClient(t, embedded(t))
	s := newSession(t, c)
	done, cancel := context.WithCancelCause(background)
	cause := errors.New("cause")
	cancel(cause)
	closed := newClient(t, "127.0.0.1:1")
	must.Succeed(t, closed.Close())
	closedSession := newSession(t, c)
	must.Succeed(t, closedSession.Close(background))
	for name, x := range map[string]struct {
		lock *etcd.Lock
		ctx  context.Context
		want error
	}{
		"no name":         {etcd.NewLock(s, ""), background, fs.ErrInvalid},
		"a queue":         {etcd.NewLock(s, "a/q"), background, fs.ErrInvalid},
		"in a queue":      {etcd.NewLock(s, "a/q/w"), background, fs.ErrInvalid},
		"no context":      {etcd.NewLock(s, "a"), nil, fs.ErrInvalid},
		"no session":      {new(etcd.Lock), background, fs.ErrInvalid},
		"no client":       {etcd.NewLock(new(etcd.Session), "a"), background, fs.ErrInvalid},
		"TTL":             {etcd.NewLock(newSession(t, c, etcd.WithTTL(0)), "a"), background, fs.ErrInvalid},
		"margin":          {etcd.NewLock(newSession(t, c, etcd.WithMargin(-1)), "a"), background, fs.ErrInvalid},
		"margin too long": {etcd.NewLock(newSession(t, c, etcd.WithMargin(ttl/2)), "a"), background, fs.ErrInvalid},
		"timeout":         {etcd.NewLock(newSession(t, c, etcd.WithTimeout(-1)), "a"), background, fs.ErrInvalid},
		"done":            {etcd.NewLock(s, "a"), done, context.Canceled},
		"cause":           {etcd.NewLock(s, "a"), done, cause},
		"closed session":  {etcd.NewLock(closedSession, "a"), background, etcd.ErrClosed},
		"closed client":   {etcd.NewLock(newSession(t, closed), "a"), background, nil},
		"TTL too long":    {etcd.NewLock(newSession(t, c, etcd.WithTTL(9_100_000_000*time.Second)), "a"), background, nil},
	} {
		t.Run(name, func(t *testing.T) {
			err := x.lock.Acquire(x.ctx)
			var path *fs.PathError
			if !errors.As(err, &path) || path.Op != "acquire" || path.Path != x.lock.Name() ||
				x.want != nil && !errors.Is(err, x.want) {
				t.Errorf("%#v", err)
			}
			if ok, again := x.lock.TryAcquire(x.ctx); ok || again == nil || again.Error() != err.Error() {
				t.Errorf("TryAcquire: %v %v, not %v", ok, again, err)
			}
			if x.lock.Acquired() {
				t.Error("acquired")
			}
		})
	}
}

func TestTimeout(t *testing.T) {
	c := newClient(t, embedded(t))
	a := etcd.NewLock(newSession(t, c), "timeout")
	b := etcd.NewLock(newSession(t, c, etcd.WithTimeout(50*time.Millisecond)), "timeout")
	must.Succeed(t, fasteners.WithLock(background, b, func(ctx context.Context) error {
		if _, ok := ctx.Deadline(); ok {
			t.Error("the timeout is one of the work, too")
		}
		return nil
	}))
	must.Succeed(t, a.Acquire(background))
	err := b.Acquire(background)
	var held *fasteners.HeldError
	if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &held) {
		t.Error(err)
	}
	awaitKeys(t, c, "timeout", 1) // that of a
	must.Succeed(t, a.Release())
}

func TestLogger(t *testing.T) {
	c := newClient(t, embedded(t))
	var out bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s := newSession(t, c, nil, etcd.WithLogger(nil), etcd.WithLogger(logger))
	l := etcd.NewLock(s, "log")
	must.Succeed(t, l.Acquire(background))
	_, err := l.TryAcquire(background)
	must.Succeed(t, err)
	must.Succeed(t, l.Release())
	_ = l.Release()
	must.Succeed(t, s.Close(background)) // nothing is logged after that
	for _, want := range []string{
		`msg="fasteners: acquire" mode=exclusive`,
		`msg="fasteners: try to acquire" mode=exclusive acquired=false path=log`,
		`msg="fasteners: release" path=log` + "\n",
		`msg="fasteners: release" path=log error="lock is not acquired"`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in %s", want, &out)
		}
	}
}

// TestCommit checks that guarded writes happen while the lock is held, and not later.
func TestCommit(t *testing.T) {
	c := newClient(t, embedded(t))
	l := etcd.NewLock(newSession(t, c), "commit")
	if _, err := etcd.Commit(background); !errors.Is(err, fasteners.ErrNotAcquired) {
		t.Error(err)
	}
	if _, ok := etcd.Guard(background); ok {
		t.Error("there is a guard without a lock")
	}
	ctx, release, err := l.Hold(background)
	must.Succeed(t, err)
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Hour)
	defer cancel()
	if _, err := etcd.Commit(within, clientv3.OpPut("written", "1")); err != nil {
		t.Error(err)
	}
	guard, ok := etcd.Guard(within)
	if !ok {
		t.Error("there is no guard")
	}
	transact := func() bool {
		resp, err := c.Txn(background).If(guard).Then(clientv3.OpPut("written", "2")).Commit()
		must.Succeed(t, err)
		return resp.Succeeded
	}
	if !transact() {
		t.Error("the guard does not hold while the lock is held")
	}
	must.Succeed(t, release())
	if transact() {
		t.Error("the guard still holds after the release")
	}
	if _, err := etcd.Commit(within, clientv3.OpPut("written", "3")); !errors.Is(err, fasteners.ErrNotAcquired) {
		t.Error(err)
	}
	resp, err := c.Get(background, "written")
	must.Succeed(t, err)
	if got := string(resp.Kvs[0].Value); got != "2" {
		t.Error(got)
	}
}
