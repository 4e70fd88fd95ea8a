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

// LockByEvents gets the lock as the table does, but never by its timers: where a wake-up is
// lost, it waits for ever.
func LockByEvents(ctx context.Context, path string, exclusive bool) (release func() error, err error) {
	mode := table.Shared
	if exclusive {
		mode = table.Exclusive
	}
	f, _, err := new(system).Create(path, mode, 0o666)
	if err != nil {
		return nil, err
	}
	release = func() error {
		if err := f.Unlock(); err != nil {
			return err
		}
		return f.Close()
	}
	if err := wait(ctx, f, mode); err != nil {
		_ = release()
		return nil, err
	}
	return release, nil
}

func wait(ctx context.Context, f table.File, mode table.Mode) error {
	if ok, err := f.Try(mode); ok || err != nil {
		return err
	}
	watch := f.Watch()
	defer watch.Stop()
	for {
		if ok, err := f.Try(mode); ok || err != nil {
			return err
		}
		if mode == table.Exclusive {
			if err := f.Gate(false); err != nil {
				return err
			}
		}
		for !watch.Wait(ctx, time.Hour) {
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
}

// Open files are as good as processes: none loses a wake-up, whatever the others do.
func TestNoFileLosesAWake(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var inside atomic.Int64 // readers count 1, writers 1000
	var wg sync.WaitGroup
	for range 6 {
		f, _, err := new(system).Create(path, table.Exclusive, 0o666)
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
				if err := wait(ctx, f, mode); err == nil {
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

// Who has the gate or looks into the room for a moment wakes those who may have come upon that.
func TestGateWakes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var files [3]table.File
	for i := range files {
		f, _, err := new(system).Create(path, table.Exclusive, 0o666)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	inside, waiting, gate := files[0], files[1], files[2]
	for _, test := range []struct{ inside, waiting table.Mode }{
		{table.Exclusive, table.Shared},
		{table.Shared, table.Exclusive},
	} {
		if ok, err := inside.Try(test.inside); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if ok, err := waiting.Try(test.waiting); ok || err != nil {
			t.Fatal(ok, err)
		}
		watch := waiting.Watch()
		if err := gate.Gate(false); err != nil {
			t.Fatal(err)
		}
		for !watch.Wait(t.Context(), time.Hour) {
		}
		watch.Stop()
		if err := errors.Join(gate.Unlock(), inside.Unlock()); err != nil {
			t.Fatal(err)
		}
	}
}
