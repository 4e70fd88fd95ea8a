package lease_test

import (
	"context"
	"testing"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/lease"
	"github.com/go-fasteners/fasteners/lockertest"
)

// A rwLock is a lock for readers and writers, of the engine of the example.
type rwLock struct{ handle lease.Handle[*hold] }

func (l *rwLock) AcquireReadLock(ctx context.Context) error {
	return l.handle.Acquire(ctx, lease.Shared)
}

func (l *rwLock) AcquireWriteLock(ctx context.Context) error {
	return l.handle.Acquire(ctx, lease.Exclusive)
}

func (l *rwLock) ReleaseReadLock() error  { return l.handle.Release(lease.Shared) }
func (l *rwLock) ReleaseWriteLock() error { return l.handle.Release(lease.Exclusive) }

func (l *rwLock) HoldRead(ctx context.Context) (context.Context, func() error, error) {
	return l.handle.Hold(ctx, lease.Shared)
}

func (l *rwLock) HoldWrite(ctx context.Context) (context.Context, func() error, error) {
	return l.handle.Hold(ctx, lease.Exclusive)
}

// The locks of the example are what lockertest requires of all locks.
func TestConformance(t *testing.T) {
	t.Parallel()
	s := newServer()
	client := NewClient(s)
	lockertest.Test(t, lockertest.Locks{
		NewLock: func(_ *testing.T, name string) fasteners.Locker { return NewLock(client, name) },
		NewReaderWriterLock: func(_ *testing.T, name string) fasteners.ReaderWriterLocker {
			return &rwLock{lease.Handle[*hold]{Engine: &client.engine, Name: name}}
		},
		Lose:     func(_ *testing.T, name string) { s.expire(name) },
		Tokens:   true,
		OneQueue: true,
		Slashes:  true,
	})
}
