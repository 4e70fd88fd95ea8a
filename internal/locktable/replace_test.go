package locktable

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// If a file with a thousand waiters is replaced while somebody holds the lock on the new file, the
// process opens the new file once, and not once for each waiter.
func TestQueueOfReplacedFile(t *testing.T) {
	for _, heldBy := range []string{"same process", "other process"} {
		t.Run(heldBy, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newKernel(path)
				p := &proc{kernel: k}
				table := New(p, 0)
				old := acquire(t, table, Exclusive)
				ctx, cancel := context.WithCancel(t.Context())
				for range 1000 {
					goLock(ctx, table, request(path), Exclusive)
				}
				k.replace(path)
				holder := table
				if heldBy == "other process" {
					holder = New(&proc{kernel: k, pid: 1}, 0)
				}
				h := acquire(t, holder, Exclusive)
				release(t, old)
				synctest.Wait()
				k.mu.Lock()
				n := len(p.descriptors())
				k.mu.Unlock()
				if n > 1 {
					t.Errorf("%d descriptors are open", n)
				}
				cancel()
				release(t, h)
				synctest.Wait()
				mustBeEmpty(t, table)
			})
		})
	}
}

// The same holds for waiters behind a leader that finds the file replaced while it is locking,
// and closes its descriptor.
func TestQueueBehindLeaderOfReplacedFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		old := heldByAnother(t, k)
		p := &proc{kernel: k}
		table := New(p, 0)
		resume := k.holdBack("try")
		ctx, cancel := context.WithCancel(t.Context())
		for range 1000 {
			goLock(ctx, table, request(path), Exclusive)
		}
		k.replace(path)
		k.mu.Lock()
		k.paths[path].locks["another program"] = Exclusive
		k.mu.Unlock()
		resume()
		synctest.Wait()
		k.mu.Lock()
		n := len(p.descriptors())
		k.mu.Unlock()
		if n > 1 {
			t.Errorf("%d descriptors are open", n)
		}
		cancel()
		release(t, old)
		synctest.Wait()
		mustBeEmpty(t, table)
	})
}

// A holder may remove the file as the last thing before its release. The next waiter of the
// process starts over on a new file: another process may lock that one, too.
func TestHolderRemovesFile(t *testing.T) {
	for _, next := range []Mode{Shared, Exclusive} {
		t.Run(next.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newKernel(path)
				table := New(&proc{kernel: k}, 0)
				h := acquire(t, table, Exclusive)
				old := h.entry.id
				waiter := goAcquire(t.Context(), table, request(path), next)
				k.remove(path)
				release(t, h)
				h = waiter.mustHold(t)
				if h.entry.id == old {
					t.Error("the waiter holds the lock on the removed file")
				}
				release(t, h)
				mustBeEmpty(t, table)
			})
		})
	}
}

// A goroutine that opens a file which another goroutine has locked meanwhile does not close it
// until the lock is released: where locks belong to the process, closing it would drop the
// lock.
func TestSecondDescriptorStaysOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k, ownsLocks: true}, time.Hour) // what Create opens stays open
		resume := k.holdBack("open")
		late := goAcquire(t.Context(), table, request(path), Exclusive)
		k.remove(path)                    // after late has looked at the path
		h := acquire(t, table, Exclusive) // which creates the file
		resume()
		synctest.Wait()
		release(t, h)
		release(t, late.mustHold(t))
		time.Sleep(3 * time.Hour)
		mustBeEmpty(t, table)
		mustBeClean(t, k)
	})
}

// After a replacement of the file, tries open no more and more descriptors, which would all
// have to stay open while the lock on the new file is held.
func TestTriesAfterReplacement(t *testing.T) {
	k := newKernel(path)
	table := New(&proc{kernel: k}, time.Hour)
	release(t, acquire(t, table, Exclusive))
	k.replace(path)
	h := acquire(t, table, Exclusive)
	before := len(k.open)
	for range 20 {
		if _, ok, err := tryAcquire(table, request(path), Exclusive); ok || err != nil {
			t.Errorf("try: %v, %v", ok, err)
		}
	}
	if len(k.open) > before {
		t.Errorf("%d descriptors are open, and %d were before", len(k.open), before)
	}
	release(t, h)
}

// A try is not refused because of a lock on the file that the path named when the lock was last
// released.
func TestTryDoesNotTrustCachedPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, time.Hour)
		release(t, acquire(t, table, Exclusive))
		old := acquire(t, table, Exclusive)
		k.remove(path)
		h, ok, err := tryAcquire(table, request(path), Exclusive)
		if !ok || err != nil {
			t.Fatalf("try: %v, %v", ok, err)
		}
		release(t, h)
		must(t, table.checkPaths())
		release(t, old)
		time.Sleep(time.Hour)
		mustBeEmpty(t, table)
	})
}

// A goroutine does not queue on a cached path, unless the lock was released a moment ago: the
// path may name another file, of which the lock is free.
func TestNoQueueOnCachedPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, time.Hour)
		release(t, acquire(t, table, Exclusive))
		old := acquire(t, table, Exclusive)
		time.Sleep(maxPathAge + 1)
		k.replace(path)
		waiter := goAcquire(t.Context(), table, request(path), Exclusive)
		if !waiter.done() {
			t.Error("it waits for the old file")
		}
		release(t, old, waiter.mustHold(t))
		time.Sleep(3 * time.Hour)
		mustBeEmpty(t, table)
	})
}

// A try that finds a lock on the file refused looks whether the path still names that file. If
// not, it starts over on the new file.
func TestTryDuringReplacement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, time.Hour)
		release(t, acquire(t, table, Exclusive)) // the descriptor stays open
		other := heldByAnother(t, k)
		resume := k.holdBack("try")
		try := goTry(t, table, Exclusive)
		k.replace(path)
		resume()
		if !receive(t, try) {
			t.Error("the try failed, though the lock on the new file is free")
		}
		release(t, other)
		time.Sleep(3 * time.Hour)
		mustBeEmpty(t, table)
	})
}

// Release does not report a replacement that another process makes once the lock is free.
func TestReplacementAfterRelease(t *testing.T) {
	k := newKernel(path)
	table := New(&proc{kernel: k}, 0)
	h := acquire(t, table, Exclusive)
	k.intercept = func(c *call) {
		c.perform()
		if c.name == "unlock" {
			k.replace(path)
		}
	}
	if same, err := h.Release(path); !same || err != nil {
		t.Errorf("release: %v, %v; want true", same, err)
	}
}

// Release reports a replacement of the file while the lock is held, but not an error of the
// system, which leaves that open.
func TestReleaseReportsReplacement(t *testing.T) {
	k := newKernel(path)
	p := &proc{kernel: k, fail: map[string]error{}}
	table := New(p, 0)
	h := acquire(t, table, Exclusive)
	if !h.SameFile(path) {
		t.Error("the path does not name the locked file")
	}
	k.replace(path)
	if h.SameFile(path) {
		t.Error("the path names the locked file after its replacement")
	}
	if same, err := h.Release(path); same || err != nil {
		t.Errorf("release: %v, %v; want false", same, err)
	}
	h = acquire(t, table, Exclusive)
	p.failNext("same file", fs.ErrPermission)
	if !h.SameFile(path) {
		t.Error("an error of the system is taken for a replacement")
	}
	p.failNext("same file", fs.ErrPermission)
	if same, err := h.Release(path); !same || err != nil {
		t.Errorf("release: %v, %v; want true", same, err)
	}
	mustBeEmpty(t, table)
	mustBeClean(t, k)
}

// However often the file is replaced, a waiter does not give up if it has to wait each time.
func TestWaiterOutlastsReplacements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, 0)
		h := heldByAnother(t, k)
		waiter := goLock(t.Context(), table, request(path), Exclusive)
		for range 2 * maxRetries {
			k.replace(path)
			next := heldByAnother(t, k)
			release(t, h)
			h = next
			time.Sleep(time.Millisecond) // until it waits for the new file
		}
		release(t, h)
		must(t, receive(t, waiter))
		mustBeEmpty(t, table)
	})
}

// However paths move between files, the table knows at most one file by a path and one path of
// a file, and knows only files that it has entries for.
func TestPathsMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel("a", "b", "c")
		table := New(&proc{kernel: k}, time.Millisecond)
		for range 10_000 {
			path, other := string('a'+rune(rand.N(3))), string('a'+rune(rand.N(3)))
			switch rand.N(4) {
			case 0:
				k.paths[path] = k.paths[other]
			case 1:
				k.create(path)
			default:
				h, err := table.Acquire(t.Context(), request(path), Exclusive, false)
				must(t, err)
				if h.entry.id != k.paths[path].id {
					t.Fatalf("%s names %v, and %v was locked", path, k.paths[path].id, h.entry.id)
				}
				if rand.N(2) == 0 {
					k.paths[path] = k.paths[other]
				}
				_, err = h.Release(path)
				must(t, err)
			}
			time.Sleep(rand.N(time.Millisecond))
			must(t, table.checkPaths())
		}
		time.Sleep(time.Second)
		mustBeEmpty(t, table)
	})
}

// checkPaths checks that paths and the paths of the entries agree.
func (t *Table) checkPaths() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for path, e := range t.paths {
		if e.path != path || t.entries[e.id] != e {
			return fmt.Errorf("%q leads to an entry with the path %q", path, e.path)
		}
	}
	for _, e := range t.entries {
		if e.path != "" && t.paths[e.path] != e {
			return fmt.Errorf("%q does not lead to its entry", e.path)
		}
	}
	return nil
}
