package locktable

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// A writer that waits for readers of another process blocks new readers, also those of the
// process that holds the lock, until it has released the lock or given up. With
// ReaderPreference it blocks none.
func TestPending(t *testing.T) {
	for _, readerPreference := range []bool{false, true} {
		t.Run(fmt.Sprintf("ReaderPreference=%v", readerPreference), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testPending(t, readerPreference) })
		})
	}
}

func testPending(t *testing.T, readerPreference bool) {
	k := newKernel(path)
	var tables []*Table
	for pid := range 3 {
		table := New(&proc{kernel: k, pid: pid}, 0)
		table.sliceLength = 0 // each reader that joins others checks for a writer
		tables = append(tables, table)
	}
	readers, writers, others := tables[0], tables[1], tables[2]
	canRead := func(want bool) {
		t.Helper()
		for _, table := range []*Table{readers, others} {
			h, ok, err := tryAcquire(table, request(path), Shared)
			if ok != want || err != nil {
				t.Errorf("a reader's try: %v, %v, want %v", ok, err, want)
			}
			if ok {
				release(t, h)
			}
		}
	}
	holder := acquire(t, readers, Shared)
	canRead(true)
	r := request(path)
	r.ReaderPreference = readerPreference

	ctx, cancel := context.WithCancel(t.Context())
	canceled := goLock(ctx, writers, r, Exclusive)
	canRead(readerPreference)
	cancel()
	if err := receive(t, canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	canRead(true)

	writer := goLock(t.Context(), writers, r, Exclusive)
	canRead(readerPreference)
	release(t, holder)
	must(t, receive(t, writer))
	synctest.Wait()
	canRead(true)
	for _, table := range tables {
		mustBeEmpty(t, table)
	}
}

// Readers behind a writer of their process join the holders immediately when it gives up, and
// not before.
func TestReadersBehindCanceledWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, 0)
		holder := acquire(t, table, Shared)
		ctx, cancel := context.WithCancel(t.Context())
		goAcquire(ctx, table, patient(), Exclusive)
		if _, ok, err := tryAcquire(table, request(path), Shared); ok || err != nil {
			t.Errorf("a reader overtakes a writer: %v, %v", ok, err)
		}
		start := time.Now()
		reader := goAcquire(t.Context(), table, request(path), Shared)
		cancel()
		h := reader.mustHold(t)
		if d := time.Since(start); d > 0 {
			t.Errorf("it took %v", d)
		}
		release(t, h, holder)
		mustBeEmpty(t, table)
	})
}

// A reader whose process holds the lock does not overtake a writer of another process that
// waits for the holder, when a waiter leaves the queue before that: neither a reader that was
// behind that waiter, nor one that arrives afterwards.
func TestReadersDoNotOvertakePendingWriter(t *testing.T) {
	for _, leaves := range []string{"reader", "writer", "reader of a replaced file"} {
		for _, readerBehind := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/readerBehind=%v", leaves, readerBehind), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { testReadersDoNotOvertake(t, leaves, readerBehind) })
			})
		}
	}
}

func testReadersDoNotOvertake(t *testing.T, leaves string, readerBehind bool) {
	k := newKernel(path)
	k.paths["other"] = k.paths[path]
	readers, writers := New(&proc{kernel: k}, 0), New(&proc{kernel: k, pid: 1}, 0)
	holder := acquire(t, readers, Shared)
	writer := goLock(t.Context(), writers, request(path), Exclusive)
	time.Sleep(time.Second)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	mode, r := Shared, request(path)
	switch leaves {
	case "writer":
		mode = Exclusive
	case "reader of a replaced file":
		r = request("other")
	}
	goLock(ctx, readers, r, mode)
	var reader <-chan error
	if readerBehind {
		reader = goLock(t.Context(), readers, request(path), Shared)
	}
	if leaves == "reader of a replaced file" {
		k.mu.Lock()
		k.create("other")
		k.mu.Unlock()
		time.Sleep(2 * maxRecheck)
	} else {
		cancel()
	}
	synctest.Wait()
	if !readerBehind {
		reader = goLock(t.Context(), readers, request(path), Shared)
	}
	time.Sleep(time.Minute)
	if len(reader) > 0 {
		t.Error("a reader overtakes the writer")
	}
	release(t, holder)
	must(t, receive(t, writer))
	must(t, receive(t, reader))
	cancel()
	time.Sleep(time.Minute)
	mustBeEmpty(t, readers)
}

// A lock that was downgraded has no time slice, so it is not without a check that a reader
// joins it, behind a writer that gives up.
func TestReadersDoNotOvertakeAfterDowngrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, 0)
		h := acquire(t, table, Exclusive)
		must(t, h.Downgrade())
		pending := goLock(t.Context(), New(&proc{kernel: k, pid: 1}, 0), request(path), Exclusive)
		ctx, cancel := context.WithCancel(t.Context())
		writer := goAcquire(ctx, table, request(path), Exclusive)
		reader := goLock(t.Context(), table, request(path), Shared)
		cancel()
		writer.mustFail(t, context.Canceled)
		synctest.Wait()
		if len(reader) > 0 {
			t.Error("a reader overtakes the writer")
		}
		release(t, h)
		must(t, receive(t, pending))
		must(t, receive(t, reader))
		mustBeEmpty(t, table)
	})
}

// Readers behind a writer that gives up do not join the holders if the check for a writer of
// another process fails. The next recheck checks again.
func TestCheckFailsWhenWriterIsCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		p := &proc{kernel: k, fail: map[string]error{}}
		table := New(p, 0)
		holder := acquire(t, table, Shared)
		ctx, cancel := context.WithCancel(t.Context())
		writer := goAcquire(ctx, table, request(path), Exclusive)
		reader := goAcquire(t.Context(), table, request(path), Shared)
		time.Sleep(time.Second) // the slice is over
		p.failNext("pending", errors.New("it fails"))
		cancel()
		writer.mustFail(t, context.Canceled)
		synctest.Wait()
		if reader.done() {
			t.Error("the reader joins without a check")
		}
		time.Sleep(2 * maxRecheck)
		if !reader.done() {
			t.Error("the reader still waits after a recheck")
		}
		release(t, holder, reader.mustHold(t))
		mustBeEmpty(t, table)
	})
}

// Readers that queue because a writer of another process waits, which then gives up, join the
// holder of their process without its release.
func TestReadersJoinAfterPendingWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		readers, writers := New(&proc{kernel: k}, 0), New(&proc{kernel: k, pid: 1}, 0)
		holder := acquire(t, readers, Shared)
		ctx, cancel := context.WithCancel(t.Context())
		goAcquire(ctx, writers, request(path), Exclusive)
		time.Sleep(time.Second)
		var waiters []*acquisition
		for range 3 {
			waiters = append(waiters, goAcquire(t.Context(), readers, request(path), Shared))
		}
		time.Sleep(time.Minute)
		for _, w := range waiters {
			if w.done() {
				t.Fatal("a reader overtakes the writer")
			}
		}
		cancel()
		start := time.Now()
		for _, w := range waiters {
			release(t, w.mustHold(t))
		}
		if d := time.Since(start); d > maxRecheck {
			t.Errorf("it took %v", d)
		}
		release(t, holder)
		mustBeEmpty(t, readers)
	})
}
