//go:build unix || windows

package fasteners_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/go-fasteners/fasteners"
)

var background = context.Background()

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A variant is one of the ways to lock a file.
type variant struct{ hold func(context.Context) error }

func variants(path string) []variant {
	hold := func(acquire func(context.Context) error, release func() error) variant {
		return variant{func(ctx context.Context) error {
			if err := acquire(ctx); err != nil {
				return err
			}
			return release()
		}}
	}
	l, rw := fasteners.NewInterProcessLock(path), fasteners.NewInterProcessReaderWriterLock(path)
	return []variant{
		hold(l.Acquire, l.Release),
		hold(rw.AcquireReadLock, rw.ReleaseReadLock),
		hold(rw.AcquireWriteLock, rw.ReleaseWriteLock),
	}
}

// A group runs goroutines that can fail.
type group struct {
	wg  sync.WaitGroup
	mu  sync.Mutex
	err error
}

func (g *group) Go(f func() error) {
	g.wg.Go(func() {
		if err := f(); err != nil {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.err = errors.Join(g.err, err)
		}
	})
}

// Wait waits for all goroutines and returns their errors.
func (g *group) Wait() error {
	g.wg.Wait()
	return g.err
}
