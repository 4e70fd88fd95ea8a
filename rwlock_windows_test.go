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

	"github.com/go-fasteners/fasteners/internal/table"
)

// LockByEvents gets the lock as the table does, but never by its timers: a waiter whose wake-up is lost
// waits forever.
func LockByEvents(ctx context.Context, path string, exclusive bool) (release func() error, err error) {
	mode := table.Shared
	if exclusive {
		mode = table.Exclusive
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

func wait(ctx context.Context, f table.File, id table.ID, mode table.Mode) (err error) {
	if ok, err := f.TryLock(mode); ok || err != nil {
		return err
	}
	released, stop := new(system).Watch(id, mode)
	defer func() { stop(err == nil) }()
	for {
		if mode == table.Exclusive {
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

// Open files are as good as processes: none loses a wake-up, whatever the others do.
func TestNoFileLosesAWake(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var inside atomic.Int64 // readers count 1, writers 1000
	var wg sync.WaitGroup
	for range 6 {
		f, id, err := new(system).Create(path, table.Exclusive, 0o666)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		wg.Go(func() {
			for range 1000 {
				mode, weight := table.Shared, int64(1)
				if rand.N(3) == 0 {
					mode, weight = table.Exclusive, 1000
				}
				ctx, cancel := context.WithCancel(context.Background())
				if rand.N(3) == 0 {
					ctx, cancel = context.WithTimeout(ctx, rand.N(time.Millisecond))
				}
				if err := wait(ctx, f, id, mode); err == nil {
					if n := inside.Add(weight); n != 1000 && n > 6 {
						t.Errorf("sum of those inside is %d", n)
					}
					inside.Add(-weight)
				} else if ctx.Err() == nil {
					t.Error(err)
				}
				cancel()
				if err := f.Unlock(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// A writer that has locked pending, or main to find out who holds the lock, for a moment wakes those that
// may have come upon that.
func TestLockPendingWakes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var files [3]table.File
	var id table.ID
	for i := range files {
		var err error
		files[i], id, err = new(system).Create(path, table.Exclusive, 0o666)
		if err != nil {
			t.Fatal(err)
		}
		defer files[i].Close()
	}
	inside, waiting, pending := files[0], files[1], files[2]
	for _, test := range []struct{ inside, waiting table.Mode }{
		{table.Exclusive, table.Shared},
		{table.Shared, table.Exclusive},
	} {
		if ok, err := inside.TryLock(test.inside); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if ok, err := waiting.TryLock(test.waiting); ok || err != nil {
			t.Fatal(ok, err)
		}
		released, stop := new(system).Watch(id, test.waiting)
		if err := pending.LockPending(); err != nil {
			t.Fatal(err)
		}
		<-released
		stop(true)
		if err := errors.Join(pending.Unlock(), inside.Unlock()); err != nil {
			t.Fatal(err)
		}
	}
}
