//go:build unix || windows

package fasteners_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
)

// An introduction: what the locks do, each in a few lines. The folder tests has the tests that try
// to break them.

// Two locks on one file exclude each other. Here they are in one process, but they might as well be
// in two.
func TestOneHolderAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data.json.lock")
	mine, yours := fasteners.NewInterProcessLock(path), fasteners.NewInterProcessLock(path)

	if err := mine.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ok, err := yours.TryAcquire(); ok || err != nil {
		t.Fatalf("TryAcquire of a lock that is held: %v, %v", ok, err)
	}
	if err := mine.Release(); err != nil {
		t.Fatal(err)
	}
	if ok, err := yours.TryAcquire(); !ok || err != nil {
		t.Fatalf("TryAcquire of a free lock: %v, %v", ok, err)
	}
	if err := yours.Release(); err != nil {
		t.Fatal(err)
	}
}

// Acquire waits until the holder releases the lock.
func TestAcquireWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data.json.lock")
	mine, yours := fasteners.NewInterProcessLock(path), fasteners.NewInterProcessLock(path)

	if err := mine.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	acquired := make(chan error)
	go func() {
		err := yours.Acquire(context.Background())
		if mine.Acquired() {
			t.Error("two holders")
		}
		acquired <- err
	}()
	if err := mine.Release(); err != nil {
		t.Fatal(err)
	}
	if err := <-acquired; err != nil {
		t.Fatal(err)
	}
	if err := yours.Release(); err != nil {
		t.Fatal(err)
	}
}

// A context ends the wait. The error tells who holds the lock.
func TestWaitEndsWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data.json.lock")
	ctx, cancel := context.WithCancel(t.Context())
	giveUp := func([]fasteners.Holder) { cancel() }
	mine := fasteners.NewInterProcessLock(path)
	yours := fasteners.NewInterProcessLock(path, fasteners.WithWaitNotice(time.Millisecond, giveUp))

	if err := mine.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer mine.Release()
	err := yours.Acquire(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error is %v", err)
	}
	if want := "acquire " + path + ": held by this process"; !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error is %q, want %q …", err, want)
	}
	var held *fasteners.HeldError
	if !errors.As(err, &held) || len(held.Holders) != 1 || held.Holders[0].PID != os.Getpid() {
		t.Errorf("holders are %v", held)
	}
}

// Any number of readers hold the lock together, and keep writers out.
func TestReadersTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data.json.lock")
	lock := fasteners.NewInterProcessReaderWriterLock(path)

	for range 3 {
		if err := lock.AcquireReadLock(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if ok, err := lock.TryAcquireWriteLock(); ok || err != nil {
		t.Errorf("a writer beside readers: %v, %v", ok, err)
	}
	for range 3 {
		if err := lock.ReleaseReadLock(); err != nil {
			t.Fatal(err)
		}
	}
	if ok, err := lock.TryAcquireWriteLock(); !ok || err != nil {
		t.Fatalf("a writer alone: %v, %v", ok, err)
	}
	if err := lock.ReleaseWriteLock(); err != nil {
		t.Fatal(err)
	}
}

// WithLock holds the lock while a function runs, whatever that returns.
func TestFunctionUnderLock(t *testing.T) {
	lock := fasteners.NewInterProcessLock(filepath.Join(t.TempDir(), "data.json.lock"))

	failed := errors.New("failed")
	err := fasteners.WithLock(t.Context(), lock, func(context.Context) error {
		if !lock.Acquired() {
			t.Error("the function runs without the lock")
		}
		return failed
	})
	if !errors.Is(err, failed) {
		t.Errorf("WithLock returns %v", err)
	}
	if lock.Acquired() {
		t.Error("the lock is still held")
	}
}

// If the lock file is removed, others can lock a new one. The holder is told: the context of its
// function ends, and so does the release with an error.
func TestReplacedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data.json.lock")
	mine, yours := fasteners.NewInterProcessLock(path), fasteners.NewInterProcessLock(path)

	err := fasteners.WithLock(t.Context(), mine, func(ctx context.Context) error {
		if err := os.Remove(path); err != nil {
			t.Skipf("the system protects the file of a lock that is held: %v", err)
		}
		if ok, err := yours.TryAcquire(); !ok || err != nil {
			t.Fatalf("TryAcquire: %v, %v", ok, err)
		}
		<-ctx.Done()
		if cause := context.Cause(ctx); !errors.Is(cause, fasteners.ErrLost) {
			t.Errorf("the context has ended because of %v", cause)
		}
		return nil
	})
	if !errors.Is(err, fasteners.ErrReplaced) {
		t.Errorf("WithLock returns %v", err)
	}
	if err := yours.Release(); err != nil {
		t.Fatal(err)
	}
}
