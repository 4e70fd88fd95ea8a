package locktable

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// A try that arrives while the leader is locking waits for the answer of the kernel, but
// neither until the leader has acquired the lock, nor until the leader releases it.
func TestTryWaitsForTheKernel(t *testing.T) {
	for _, heldBy := range []string{"nobody", "other process"} {
		t.Run(heldBy, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newKernel(path)
				var other []Hold
				if heldBy == "other process" {
					other = append(other, acquire(t, New(&proc{kernel: k, pid: 1}, time.Hour), Exclusive))
				}
				table := New(&proc{kernel: k}, 0)
				resume := k.holdBack("try")
				leader := goAcquire(t.Context(), table, request(path), Exclusive)
				try := goTry(t, table, Exclusive)
				if len(try) > 0 {
					t.Fatal("the try did not wait for the answer of the kernel")
				}
				resume()
				synctest.Wait()
				mustBeRefused(t, try)
				release(t, other...)
				release(t, leader.mustHold(t))
				time.Sleep(time.Hour)
				mustBeEmpty(t, table)
			})
		})
	}
}

// A try does not wait if the leader waits for another process.
func TestTryWhileLeaderWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		h := heldByAnother(t, k)
		table := New(&proc{kernel: k}, 0)
		ctx, cancel := context.WithCancel(t.Context())
		leader := goAcquire(ctx, table, request(path), Exclusive)
		mustBeRefused(t, goTry(t, table, Exclusive))
		cancel()
		leader.mustFail(t, context.Canceled)
		release(t, h)
		mustBeEmpty(t, table)
	})
}

// A try that arrives during a release acquires the lock, also if the holder had to wait for the
// lock.
func TestTryDuringRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		other := heldByAnother(t, k)
		table := New(&proc{kernel: k}, 0)
		waiter := goAcquire(t.Context(), table, request(path), Exclusive)
		release(t, other)
		h := waiter.mustHold(t)
		resume := k.holdBack("unlock")
		go func() { _, _ = h.Release(path) }()
		synctest.Wait()
		try := goTry(t, table, Exclusive)
		resume()
		if !receive(t, try) {
			t.Error("the try failed, though the lock is free")
		}
		synctest.Wait()
		mustBeEmpty(t, table)
	})
}

// A reader that leads after a canceled writer is locking. A reader's try that arrives meanwhile
// acquires the lock together with it.
func TestTryAfterLeaderIsCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		other := heldByAnother(t, k)
		table := New(&proc{kernel: k}, 0)
		ctx, cancel := context.WithCancel(t.Context())
		writer := goAcquire(ctx, table, patient(), Exclusive)
		time.Sleep(10 * time.Hour) // it does not try any more
		reader := goAcquire(t.Context(), table, request(path), Shared)
		resume := k.holdBack("try")
		cancel() // the reader leads, and tries
		writer.mustFail(t, context.Canceled)
		synctest.Wait()
		release(t, other)
		try := goTry(t, table, Shared)
		resume()
		if !receive(t, try) {
			t.Error("the try failed, though no writer exists")
		}
		release(t, reader.mustHold(t))
		synctest.Wait()
		mustBeEmpty(t, table)
	})
}

// A try that arrives while the leader is locking, and queues behind a waiter, is refused once
// the file is locked.
func TestTryBehindWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, 0)
		resume := k.holdBack("try")
		leader := goAcquire(t.Context(), table, request(path), Exclusive)
		waiter := goAcquire(t.Context(), table, request(path), Exclusive)
		try := goTry(t, table, Exclusive)
		resume()
		synctest.Wait()
		mustBeRefused(t, try)
		release(t, leader.mustHold(t))
		release(t, waiter.mustHold(t))
		synctest.Wait()
		mustBeEmpty(t, table)
	})
}

// A writer's try that arrives while a reader is locking is refused once the file is locked, and the
// readers behind it acquire the lock immediately.
func TestReadersBehindWriterTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, 0)
		resume := k.holdBack("try")
		leader := goAcquire(t.Context(), table, request(path), Shared)
		writerTry := goTry(t, table, Exclusive)
		reader := goAcquire(t.Context(), table, request(path), Shared)
		readerTry := goTry(t, table, Shared)
		start := time.Now()
		resume()
		if receive(t, writerTry) {
			t.Error("the writer's try acquired the lock")
		}
		if !receive(t, readerTry) {
			t.Error("the reader's try was refused")
		}
		release(t, leader.mustHold(t), reader.mustHold(t))
		if d := time.Since(start); d > 0 {
			t.Errorf("it took %v", d)
		}
		mustBeEmpty(t, table)
	})
}
