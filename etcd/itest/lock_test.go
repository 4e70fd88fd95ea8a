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
	clientv3 "go.etcd.io/etcd/client/v3"
)

var bg = context.Background()

func TestLock(t *testing.T) {
	c := newClient(t, embedded(t))
	s := newSession(t, c)
	a, b := etcd.NewLock(s, "lock"), etcd.NewLock(s, "lock")
	must(t, a.Acquire(bg))
	if !a.Acquired() || b.Acquired() || a.Name() != "lock" {
		t.Error(a.Acquired(), b.Acquired(), a.Name())
	}
	if ok, err := b.TryAcquire(bg); ok || err != nil {
		t.Fatal(ok, err)
	}
	second := inBackground(func() error { return b.Acquire(bg) })
	third := inBackground(func() error { return a.Acquire(bg) })
	blocks(t, "two holders", second)
	blocks(t, "two holders through one value", third)
	must(t, a.Release())
	select {
	case err := <-second:
		must(t, err)
		blocks(t, "two holders", third)
		must(t, b.Release())
		must(t, <-third)
		must(t, a.Release())
	case err := <-third:
		must(t, err)
		blocks(t, "two holders", second)
		must(t, a.Release())
		must(t, <-second)
		must(t, b.Release())
	}
	for _, l := range []*etcd.Lock{a, b} {
		if err := l.Release(); !errors.Is(err, fasteners.ErrNotAcquired) {
			t.Error(err)
		}
	}
	if ok, err := b.TryAcquire(bg); !ok || err != nil {
		t.Fatal(ok, err)
	}
	must(t, b.Release())
	if keys := keysOf(t, c, "lock"); len(keys) > 0 {
		t.Errorf("left: %q", keys)
	}
}

// TestOrder checks that waiters of different sessions are served in order of arrival, readers together.
func TestOrder(t *testing.T) {
	addr := embedded(t)
	admin := newClient(t, addr)
	sessions := []*etcd.Session{newSession(t, admin), newSession(t, newClient(t, addr))}
	first := etcd.NewReaderWriterLock(sessions[0], "order")
	must(t, first.AcquireReadLock(bg))
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
			if err := acquire(bg); err != nil {
				t.Error(err)
			}
			got <- i
		}()
		awaitKeys(t, admin, "order", i+2)
	}
	if ok, err := first.TryAcquireReadLock(bg); ok || err != nil {
		t.Error("a reader has overtaken a writer: ", ok, err)
	}
	blocks(t, "a waiter does not wait", got)
	must(t, first.ReleaseReadLock())
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
		blocks(t, "too many holders", got)
		for _, i := range is {
			must(t, release[i]())
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
		must(t, fasteners.WithLock(bg, l, func(ctx context.Context) error {
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
	done, cancel := context.WithCancelCause(bg)
	cause := errors.New("cause")
	cancel(cause)
	closed := newClient(t, "127.0.0.1:1")
	must(t, closed.Close())
	closedSession := newSession(t, c)
	must(t, closedSession.Close(bg))
	for name, x := range map[string]struct {
		lock *etcd.Lock
		ctx  context.Context
		want error
	}{
		"no name":         {etcd.NewLock(s, ""), bg, fs.ErrInvalid},
		"a queue":         {etcd.NewLock(s, "a/q"), bg, fs.ErrInvalid},
		"in a queue":      {etcd.NewLock(s, "a/q/w"), bg, fs.ErrInvalid},
		"no context":      {etcd.NewLock(s, "a"), nil, fs.ErrInvalid},
		"no session":      {new(etcd.Lock), bg, fs.ErrInvalid},
		"no client":       {etcd.NewLock(new(etcd.Session), "a"), bg, fs.ErrInvalid},
		"TTL":             {etcd.NewLock(newSession(t, c, etcd.WithTTL(0)), "a"), bg, fs.ErrInvalid},
		"margin":          {etcd.NewLock(newSession(t, c, etcd.WithMargin(-1)), "a"), bg, fs.ErrInvalid},
		"margin too long": {etcd.NewLock(newSession(t, c, etcd.WithMargin(ttl/2)), "a"), bg, fs.ErrInvalid},
		"timeout":         {etcd.NewLock(newSession(t, c, etcd.WithTimeout(-1)), "a"), bg, fs.ErrInvalid},
		"done":            {etcd.NewLock(s, "a"), done, context.Canceled},
		"cause":           {etcd.NewLock(s, "a"), done, cause},
		"closed session":  {etcd.NewLock(closedSession, "a"), bg, etcd.ErrClosed},
		"closed client":   {etcd.NewLock(newSession(t, closed), "a"), bg, nil},
		"TTL too long":    {etcd.NewLock(newSession(t, c, etcd.WithTTL(9_100_000_000*time.Second)), "a"), bg, nil},
	} {
		t.Run(name, func(t *testing.T) {
			err := x.lock.Acquire(x.ctx)
			var path *fs.PathError
			if !errors.As(err, &path) || path.Op != "acquire" || path.Path != x.lock.Name() || x.want != nil && !errors.Is(err, x.want) {
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
	a, b := etcd.NewLock(newSession(t, c), "timeout"), etcd.NewLock(newSession(t, c, etcd.WithTimeout(50*time.Millisecond)), "timeout")
	must(t, fasteners.WithLock(bg, b, func(ctx context.Context) error {
		if _, ok := ctx.Deadline(); ok {
			t.Error("the timeout is one of the work, too")
		}
		return nil
	}))
	must(t, a.Acquire(bg))
	err := b.Acquire(bg)
	var held *fasteners.HeldError
	if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &held) {
		t.Error(err)
	}
	awaitKeys(t, c, "timeout", 1) // that of a
	must(t, a.Release())
}

func TestLogger(t *testing.T) {
	c := newClient(t, embedded(t))
	var out bytes.Buffer
	s := newSession(t, c, nil, etcd.WithLogger(nil), etcd.WithLogger(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))))
	l := etcd.NewLock(s, "log")
	must(t, l.Acquire(bg))
	_, err := l.TryAcquire(bg)
	must(t, err)
	must(t, l.Release())
	_ = l.Release()
	must(t, s.Close(bg)) // nothing is logged after that
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
	if _, err := etcd.Commit(bg); !errors.Is(err, fasteners.ErrNotAcquired) {
		t.Error(err)
	}
	if _, ok := etcd.Guard(bg); ok {
		t.Error("there is a guard without a lock")
	}
	ctx, release, err := l.Hold(bg)
	must(t, err)
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
		resp, err := c.Txn(bg).If(guard).Then(clientv3.OpPut("written", "2")).Commit()
		must(t, err)
		return resp.Succeeded
	}
	if !transact() {
		t.Error("the guard does not hold while the lock is held")
	}
	must(t, release())
	if transact() {
		t.Error("the guard still holds after the release")
	}
	if _, err := etcd.Commit(within, clientv3.OpPut("written", "3")); !errors.Is(err, fasteners.ErrNotAcquired) {
		t.Error(err)
	}
	resp, err := c.Get(bg, "written")
	must(t, err)
	if got := string(resp.Kvs[0].Value); got != "2" {
		t.Error(got)
	}
}
