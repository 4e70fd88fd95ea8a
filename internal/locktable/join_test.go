package locktable

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Readers that join others within a time slice do without a system call but that for the path.
// After it, one of them checks for a writer of another process, and a new slice begins.
func TestReadersCheckOnceASlice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, 0)
		holder := acquire(t, table, Shared)
		var checks atomic.Int64
		k.count(&checks, "pending")
		for slice := range int64(5) {
			for range 3 {
				release(t, acquire(t, table, Shared))
			}
			if n := checks.Load(); n != slice {
				t.Fatalf("%d checks in %d slices", n, slice+1)
			}
			time.Sleep(sliceLength)
		}
		release(t, holder)
		mustBeEmpty(t, table)
	})
}

// The readers that join when a writer ahead of them gives up begin a new time slice, too.
func TestReadersJoinInNewSlice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, 0)
		holder := acquire(t, table, Shared)
		ctx, cancel := context.WithCancel(t.Context())
		writer := goAcquire(ctx, table, request(path), Exclusive)
		reader := goAcquire(t.Context(), table, request(path), Shared)
		time.Sleep(time.Second) // the slice is over
		var checks atomic.Int64
		k.count(&checks, "pending")
		cancel()
		writer.mustFail(t, context.Canceled)
		release(t, reader.mustHold(t), acquire(t, table, Shared), holder)
		if n := checks.Load(); n != 1 {
			t.Errorf("%d checks, want 1", n)
		}
		mustBeEmpty(t, table)
	})
}

// blockedReader returns a reader of process 0 that wants to join holder after the end of the
// time slice, and is blocked in its check for a writer. A writer of process 1 waits for the
// holder.
func blockedReader(t *testing.T, k *kernel, readers *Table) (holder Hold, reader *acquisition, writer <-chan error, resume func()) {
	t.Helper()
	holder = acquire(t, readers, Shared)
	writer = goLock(t.Context(), New(&proc{kernel: k, pid: 1}, 0), request(path), Exclusive)
	time.Sleep(time.Second) // the slice is over
	resume = k.holdBack("pending")
	reader = goAcquire(t.Context(), readers, request(path), Shared)
	return holder, reader, writer, resume
}

// A reader that joins the holders becomes the only one while it checks for a writer. If it
// queued then, nobody would lead:
//
//	holder               reader, of the same process      writer, of another process
//	                                                      waits for the holder; locks pending
//	                     joins; checks for a writer …
//	release
//	                     … finds one
//
// The reader releases the lock, and starts over behind the writer.
func TestReleaseWhileReaderJoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		readers := New(&proc{kernel: k}, 0)
		holder, reader, writer, resume := blockedReader(t, k, readers)
		release(t, holder)
		resume()
		must(t, receive(t, writer))
		release(t, reader.mustHold(t))
		mustBeEmpty(t, readers)
		mustBeClean(t, k)
	})
}

// If the check of a reader that joins the holders fails, it gets the error, and the holders
// still hold the lock.
func TestCheckFailsWhileReaderJoins(t *testing.T) {
	errFail := errors.New("it fails")
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		p := &proc{kernel: k, fail: map[string]error{}}
		table := New(p, 0)
		holder := acquire(t, table, Shared)
		time.Sleep(time.Second) // the slice is over
		p.failNext("pending", errFail)
		goAcquire(t.Context(), table, request(path), Shared).mustFail(t, errFail)
		if _, ok, err := tryAcquire(New(&proc{kernel: k, pid: 1}, 0), request(path), Exclusive); ok || err != nil {
			t.Errorf("a writer's try: %v, %v", ok, err)
		}
		release(t, holder)
		mustBeEmpty(t, table)
		mustBeClean(t, k)
	})
}

// A reader's try that finds a writer of another process waiting does not queue behind it.
func TestTryDoesNotQueueBehindPendingWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		readers := New(&proc{kernel: k}, 0)
		holder := acquire(t, readers, Shared)
		writer := goLock(t.Context(), New(&proc{kernel: k, pid: 1}, 0), request(path), Exclusive)
		time.Sleep(time.Second) // the slice is over
		mustBeRefused(t, goTry(t, readers, Shared))
		release(t, holder)
		must(t, receive(t, writer))
		mustBeEmpty(t, readers)
	})
}

// A reader does not queue behind a writer of another process on a cached path: the path may
// name another file, of which the lock is free.
func TestReaderDoesNotQueueOnCachedPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		readers := New(&proc{kernel: k}, 0)
		holder := acquire(t, readers, Shared)
		release(t, acquire(t, readers, Shared)) // the path is cached
		writer := goAcquire(t.Context(), New(&proc{kernel: k, pid: 1}, 0), request(path), Exclusive)
		time.Sleep(time.Second) // the slice is over
		k.replace(path)
		reader := goAcquire(t.Context(), readers, request(path), Shared)
		if !reader.done() {
			t.Error("the reader waits for the old file")
		}
		release(t, holder, reader.mustHold(t))
		release(t, writer.mustHold(t))
		mustBeEmpty(t, readers)
	})
}

// The last holder awaits a check by a goroutine that does not hold the lock before it unlocks
// and closes the file.
func TestReleaseDuringCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, 0)
		holder := acquire(t, table, Shared)
		ctx, cancel := context.WithCancel(t.Context())
		readerCtx, cancelReader := context.WithCancel(t.Context())
		writer := goAcquire(ctx, table, request(path), Exclusive)
		reader := goAcquire(readerCtx, table, request(path), Shared)
		time.Sleep(time.Second) // the slice is over
		resume := k.holdBack("pending")
		cancel() // the writer checks whether the reader can join the holder
		synctest.Wait()
		cancelReader()
		synctest.Wait()
		released := make(chan error, 1)
		go func() {
			_, err := holder.Release(path)
			released <- err
		}()
		synctest.Wait()
		if len(released) > 0 {
			t.Error("the file was unlocked during a check")
		}
		resume()
		must(t, receive(t, released))
		writer.mustFail(t, context.Canceled)
		reader.mustFail(t, context.Canceled)
		mustBeEmpty(t, table)
		mustBeClean(t, k)
	})
}
