package fasteners

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners/internal/locktable"
)

// LockByEvents acquires the lock as the table does, but without its timers: if a wake-up is lost, it
// waits forever.
func LockByEvents(ctx context.Context, path string, exclusive bool) (release func() error, err error) {
	mode := locktable.Shared
	if exclusive {
		mode = locktable.Exclusive
	}
	f, id, err := new(system).Create(path, mode, 0o666)
	if err != nil {
		return nil, err
	}
	release = func() error {
		if err := f.Unlock(); err != nil {
			return err
		}
		return f.Close()
	}
	if err := wait(ctx, f, id, mode); err != nil {
		_ = release()
		return nil, err
	}
	return release, nil
}

func wait(ctx context.Context, f locktable.File, id locktable.ID, mode locktable.Mode) (err error) {
	if ok, err := f.TryLock(mode); ok || err != nil {
		return err
	}
	released, stop := new(system).Watch(id, mode)
	defer func() { stop(err == nil) }()
	for {
		if mode == locktable.Exclusive {
			if err := f.LockPending(); err != nil {
				return err
			}
		}
		if ok, err := f.TryLock(mode); ok || err != nil {
			return err
		}
		select {
		case <-released:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Open files exclude and wake each other as processes do. No wake-up is lost when many of them
// acquire and release the lock, and give up waiting.
func TestNoLostWakeupsBetweenFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var holders atomic.Int64 // a reader counts 1, a writer 1000
	var wg sync.WaitGroup
	for range 6 {
		f, id, err := new(system).Create(path, locktable.Exclusive, 0o666)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		hold := func(mode locktable.Mode, weight int64, timeout time.Duration) error {
			ctx, cancel := context.WithTimeout(context.Background(), timeout)
			defer cancel()
			err := wait(ctx, f, id, mode)
			if err == nil {
				if n := holders.Add(weight); n != 1000 && n > 6 {
					t.Errorf("sum over the holders is %d", n)
				}
				holders.Add(-weight)
			} else if ctx.Err() != nil {
				err = nil
			}
			return errors.Join(err, f.Unlock())
		}
		wg.Go(func() {
			for range 1000 {
				mode, weight, timeout := locktable.Shared, int64(1), time.Hour
				if rand.N(3) == 0 {
					mode, weight = locktable.Exclusive, 1000
				}
				if rand.N(3) == 0 {
					timeout = rand.N(time.Millisecond)
				}
				if err := hold(mode, weight, timeout); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// A writer locks pending, and for a moment main, to find out who holds the lock. It then wakes
// waiters, as one of them may have failed to acquire the lock at that moment.
func TestLockPendingWakesWaiters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var files [3]locktable.File
	var id locktable.ID
	for i := range files {
		var err error
		files[i], id, err = new(system).Create(path, locktable.Exclusive, 0o666)
		if err != nil {
			t.Fatal(err)
		}
		defer files[i].Close()
	}
	holder, waiter, pending := files[0], files[1], files[2]
	for _, test := range []struct{ holder, waiter locktable.Mode }{
		{locktable.Exclusive, locktable.Shared},
		{locktable.Shared, locktable.Exclusive},
	} {
		if ok, err := holder.TryLock(test.holder); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if ok, err := waiter.TryLock(test.waiter); ok || err != nil {
			t.Fatal(ok, err)
		}
		released, stop := new(system).Watch(id, test.waiter)
		if err := pending.LockPending(); err != nil {
			t.Fatal(err)
		}
		<-released
		stop(true)
		if err := errors.Join(pending.Unlock(), holder.Unlock()); err != nil {
			t.Fatal(err)
		}
	}
}
