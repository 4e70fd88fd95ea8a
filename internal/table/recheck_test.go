package table

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"
)

// patient is a request of a caller that never wants to poll.
func patient() *Request {
	return &Request{Path: path, Options: &Options{Delay: 24 * time.Hour, MaxDelay: 24 * time.Hour}}
}

// A waiter whose path comes to name another file, or none, starts over before long, whatever the
// interval at which it wants to poll, though the holder of the old file lives on: as the leader or
// behind it, with any context, also if it came when others had waited for long.
func TestRecheckFindsReplacedFile(t *testing.T) {
	for _, ownsLocks := range []bool{false, true} {
		for _, heldBy := range []string{"same process", "other process"} {
			for _, mode := range []Mode{Shared, Exclusive} {
				synctest.Test(t, func(t *testing.T) {
					k := newKernel(path)
					p := &proc{kernel: k, ownsLocks: ownsLocks}
					table := New(p, 0)
					holder := table
					if heldBy == "other process" {
						holder = New(&proc{kernel: k, pid: 1, ownsLocks: ownsLocks}, 0)
					}
					old, err := holder.Acquire(t.Context(), patient(), Exclusive, false)
					must(t, err)
					cancelable, cancel := context.WithCancel(t.Context())
					defer cancel()
					done := make(chan error, 4)
					wait := func(ctx context.Context, r *Request) {
						go func() {
							h, err := table.Acquire(ctx, r, mode, false)
							if err == nil {
								_, err = h.Release(path)
							}
							done <- err
						}()
						synctest.Wait()
					}
					wait(context.Background(), patient())
					wait(cancelable, patient())
					time.Sleep(time.Hour)
					wait(context.Background(), request(path))
					wait(cancelable, patient())
					k.mu.Lock()
					k.unlink(path)
					k.create(path)
					k.mu.Unlock()
					time.Sleep(2 * maxRecheck)
					if n := len(done); n < 4 {
						t.Errorf("%v, held by the %s: %d of 4 had the lock", mode, heldBy, n)
					}
					if _, err := old.Release(path); err != nil {
						t.Error(err)
					}
					for range 4 {
						must(t, <-done)
					}
					time.Sleep(time.Minute)
					mustBeEmpty(t, table)
				})
			}
		}
	}
}

// A leader that had to poll at first, and then waits in the kernel, has rechecks there, too.
func TestRecheckAfterPolling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		old := heldByAnother(t, k)
		table := New(&proc{kernel: k, fail: map[string]error{"wait": errors.ErrUnsupported}}, 0)
		got := make(chan Hold, 1)
		go func() {
			h, err := table.Acquire(t.Context(), patient(), Exclusive, false)
			must(t, err)
			got <- h
		}()
		time.Sleep(time.Hour)
		k.mu.Lock()
		k.unlink(path)
		k.mu.Unlock()
		time.Sleep(2 * maxRecheck)
		if len(got) == 0 {
			t.Error("it waits for the removed file")
			k.change()
		}
		_, err := old.Release(path)
		must(t, err)
		h := <-got
		_, err = h.Release(path)
		must(t, err)
		mustBeEmpty(t, table)
	})
}

// A file that is replaced again and again does not make a waiter give up, if it has to wait each time.
func TestReplacedAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, 0)
		h := heldByAnother(t, k)
		got := make(chan error, 1)
		acquire(t.Context(), table, Exclusive, func(h Hold, err error) {
			if err == nil {
				_, err = h.Release(path)
			}
			got <- err
		})
		for range 2 * maxRetries {
			k.mu.Lock()
			k.unlink(path)
			k.create(path)
			k.mu.Unlock()
			next := heldByAnother(t, k)
			_, err := h.Release(path)
			must(t, err)
			h = next
			time.Sleep(time.Millisecond) // until it waits for the new one
		}
		_, err := h.Release(path)
		must(t, err)
		must(t, <-got)
		mustBeEmpty(t, table)
	})
}

// The first look comes soon, also where the last wait was long ago or still goes on.
func TestRecheckBeginsSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, 0)
		h, err := table.Acquire(t.Context(), request(path), Exclusive, false)
		must(t, err)
		for range 3 {
			ctx, cancel := context.WithCancel(t.Context())
			acquire(ctx, table, Exclusive, func(Hold, error) {})
			time.Sleep(time.Hour) // its rechecks are rare by now
			cancel()
			synctest.Wait()
			var looks atomic.Int64
			k.count(&looks, "same file")
			ctx, cancel = context.WithCancel(t.Context())
			acquire(ctx, table, Exclusive, func(Hold, error) {})
			before := looks.Load()
			time.Sleep(firstRecheck + 1)
			synctest.Wait()
			if looks.Load() <= before {
				t.Errorf("nobody has looked after %v", firstRecheck)
			}
			k.setSched(nil)
			cancel()
			synctest.Wait()
		}
		_, err = h.Release(path)
		must(t, err)
	})
}

// While nobody waits there is no recheck, and while somebody does there are not many.
func TestRechecksAreRare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		h := heldByAnother(t, k)
		table := New(&proc{kernel: k}, 0)
		var looks atomic.Int64
		k.count(&looks, "")
		got := make(chan Hold, 1)
		for range 100 {
			acquire(t.Context(), table, Exclusive, func(h Hold, err error) {
				must(t, err)
				got <- h
			})
		}
		looks.Store(0)
		time.Sleep(time.Minute)
		if n := looks.Load(); n < 60 || n > 3*80 { // each looks at the path, and twice at who holds the lock
			t.Errorf("%d system calls in a minute", n)
		}
		_, err := h.Release(path)
		must(t, err)
		for range 100 {
			h := <-got
			_, err := h.Release(path)
			must(t, err)
			synctest.Wait()
		}
		looks.Store(0)
		time.Sleep(time.Hour)
		if n := looks.Load(); n > 0 {
			t.Errorf("%d system calls while nobody waits", n)
		}
		mustBeEmpty(t, table)
	})
}

// An entry that nobody needs is gone, with its timers, however long its waiters would have polled.
func TestNoEntryIsLeft(t *testing.T) {
	k := newKernel(path)
	table := New(&proc{kernel: k}, 0)
	h, err := table.Acquire(context.Background(), patient(), Exclusive, false)
	must(t, err)
	e := weak.Make(h.entry)
	done := make(chan error)
	go func() {
		h, err := table.Acquire(context.Background(), patient(), Exclusive, false)
		if err == nil {
			_, err = h.Release(path)
		}
		done <- err
	}()
	for { // until it queues
		table.mu.Lock()
		waits := h.entry.queue.head != nil
		table.mu.Unlock()
		if waits {
			break
		}
		runtime.Gosched()
	}
	_, err = h.Release(path)
	must(t, err)
	must(t, <-done)
	h = Hold{}
	for range 100 {
		runtime.GC()
		if e.Value() == nil {
			return
		}
	}
	t.Error("the entry is still there")
}

// Readers that stand behind a waiter which gives up, or whose file was replaced, do not pass a writer of
// another process that waits for those inside.
func TestReadersDoNotPassAPendingWriter(t *testing.T) {
	for _, gone := range []string{"reader", "writer", "reader of a replaced file"} {
		for _, readerBehind := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				k := newKernel(path)
				k.names["other"] = k.names[path]
				readers, writers := New(&proc{kernel: k}, 0), New(&proc{kernel: k, pid: 1}, 0)
				inside, err := readers.Acquire(t.Context(), request(path), Shared, false)
				must(t, err)
				once := func(table *Table, mode Mode) <-chan error {
					done := make(chan error, 1)
					acquire(t.Context(), table, mode, func(h Hold, err error) {
						if err == nil {
							_, err = h.Release(path)
						}
						done <- err
					})
					return done
				}
				written := once(writers, Exclusive)
				time.Sleep(time.Second)

				ctx, cancel := context.WithCancel(t.Context())
				mode, r := Shared, request(path)
				switch gone {
				case "writer":
					mode = Exclusive
				case "reader of a replaced file":
					r = request("other")
				}
				go func() {
					if h, err := readers.Acquire(ctx, r, mode, false); err == nil {
						_, _ = h.Release(r.Path)
					}
				}()
				synctest.Wait()
				var read <-chan error
				if readerBehind {
					read = once(readers, Shared)
				}
				if gone == "reader of a replaced file" {
					k.mu.Lock()
					k.create("other")
					k.mu.Unlock()
					time.Sleep(2 * maxRecheck)
				} else {
					cancel()
				}
				synctest.Wait()
				if !readerBehind {
					read = once(readers, Shared)
				}
				time.Sleep(time.Minute)
				if len(read) > 0 {
					t.Errorf("%s, %v: a reader passes the writer", gone, readerBehind)
				}
				_, err = inside.Release(path)
				must(t, err)
				must(t, <-written)
				must(t, <-read)
				cancel()
				time.Sleep(time.Minute)
				mustBeEmpty(t, readers)
			})
		}
	}
}

// Readers wait for a writer of another process that then gives up. They get in beside the one that is
// inside, without its release.
func TestPendingWriterGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		readers, writers := New(&proc{kernel: k}, 0), New(&proc{kernel: k, pid: 1}, 0)
		inside, err := readers.Acquire(t.Context(), request(path), Shared, false)
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		acquire(ctx, writers, Exclusive, func(Hold, error) {})
		time.Sleep(time.Second)
		read := make(chan Hold, 3)
		for range 3 {
			acquire(t.Context(), readers, Shared, func(h Hold, err error) { must(t, err); read <- h })
		}
		time.Sleep(time.Minute)
		if len(read) > 0 {
			t.Fatal("a reader passes the writer")
		}
		cancel()
		start := time.Now()
		for range 3 {
			h := <-read
			_, err = h.Release(path)
			must(t, err)
		}
		if d := time.Since(start); d > maxRecheck {
			t.Errorf("it took %v", d)
		}
		_, err = inside.Release(path)
		must(t, err)
		mustBeEmpty(t, readers)
	})
}

// A writer in the kernel finds that readers have come after the writer for which it began to wait.
func TestWriterFindsReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		h := heldByAnother(t, k)
		table := New(&proc{kernel: k}, 0)
		got := make(chan Hold, 1)
		acquire(t.Context(), table, Exclusive, func(h Hold, err error) { must(t, err); got <- h })
		time.Sleep(time.Hour)
		if k.names[path].pending != nil {
			t.Fatal("pending is locked while a writer is inside")
		}
		must(t, h.Downgrade())
		time.Sleep(maxRecheck + 1)
		synctest.Wait()
		if k.names[path].pending == nil {
			t.Error("pending is not locked while readers are inside")
		}
		_, err := h.Release(path)
		must(t, err)
		h = <-got
		_, err = h.Release(path)
		must(t, err)
		mustBeEmpty(t, table)
	})
}

// A check that is under way when the wait ends is over before the file is unlocked: what it locks would
// stay locked.
func TestCheckMeetsTheEndOfAWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		h := heldByAnother(t, k)
		table := New(&proc{kernel: k}, time.Hour)
		ctx, cancel := context.WithCancel(t.Context())
		canceled := make(chan error, 1)
		acquire(ctx, table, Exclusive, func(_ Hold, err error) { canceled <- err })
		must(t, h.Downgrade())
		open := holdBack(k, "lock pending")
		time.Sleep(maxRecheck) // it is about to lock pending
		cancel()
		synctest.Wait()
		open()
		synctest.Wait()
		if err := <-canceled; !errors.Is(err, context.Canceled) {
			t.Errorf("error is %v", err)
		}
		if k.names[path].pending != nil {
			t.Error("pending is locked")
		}
		k.setSched(nil)
		_, err := h.Release(path)
		must(t, err)
		time.Sleep(2 * time.Hour)
		mustBeEmpty(t, table)
	})
}

// A recheck that begins while another one is under way leaves it to that, and the next ones come.
func TestRechecksDoNotOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		h := heldByAnother(t, k)
		table := New(&proc{kernel: k}, 0)
		done := make(chan error, 1)
		acquire(t.Context(), table, Exclusive, func(h Hold, err error) {
			if err == nil {
				_, err = h.Release(path)
			}
			done <- err
		})
		table.mu.Lock()
		e := table.entries[k.names[path].id]
		table.mu.Unlock()
		open := holdBack(k, "lock pending")
		for range 3 {
			go e.recheckNow()
			synctest.Wait()
		}
		open()
		synctest.Wait()
		k.mu.Lock()
		k.unlink(path)
		k.mu.Unlock()
		must(t, <-done) // of a new file
		_, err := h.Release(path)
		must(t, err)
		mustBeEmpty(t, table)
	})
}

// An error that a recheck meets is that of the waiter.
func TestRecheckFails(t *testing.T) {
	errFail := errors.New("it fails")
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		h := heldByAnother(t, k)
		p := &proc{kernel: k, fail: map[string]error{}}
		table := New(p, 0)
		got := make(chan error, 1)
		acquire(t.Context(), table, Exclusive, func(_ Hold, err error) { got <- err })
		k.mu.Lock()
		p.fail["lock pending"] = errFail
		k.mu.Unlock()
		if err := <-got; err != errFail {
			t.Errorf("error is %v", err)
		}
		_, err := h.Release(path)
		must(t, err)
		mustBeEmpty(t, table)
	})
}

// A wait that ends with its context has the error of the context, and not its cause.
func TestContextWithCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		h := heldByAnother(t, k)
		table := New(&proc{kernel: k}, 0)
		ctx, cancel := context.WithCancelCause(t.Context())
		got := make(chan error, 1)
		acquire(ctx, table, Exclusive, func(_ Hold, err error) { got <- err })
		cancel(errors.New("a cause"))
		if err := <-got; !errors.Is(err, context.Canceled) {
			t.Errorf("error is %v", err)
		}
		_, err := h.Release(path)
		must(t, err)
		mustBeEmpty(t, table)
	})
}

// unstable is a file system that gives a file another number each time that it is asked.
type unstable struct {
	*proc
	asked atomic.Uint64
}

func (u *unstable) Identify(path string) (ID, error) {
	_, err := u.proc.Identify(path)
	return ID{2, u.asked.Add(1)}, err
}

func (u *unstable) SameFile(string, ID) (bool, error) { return false, nil }

func (u *unstable) Open(path string, mode Mode) (File, ID, error) {
	f, _, err := u.proc.Open(path, mode)
	return f, ID{2, u.asked.Add(1)}, err
}

// Where the numbers of files do not stay the same, or each call says that the file is gone, acquiring
// ends with an error.
func TestRetriesEnd(t *testing.T) {
	for _, call := range []string{"", "identify", "open", "try"} {
		synctest.Test(t, func(t *testing.T) {
			k := newKernel(path)
			p := &proc{kernel: k, failAlways: map[string]error{call: ErrRetry}}
			var s System = p
			if call == "" {
				s = &unstable{proc: p}
			}
			table := New(s, 0)
			if _, ok, err := tryAcquire(table, request(path), Exclusive); ok || !errors.Is(err, ErrRetry) {
				t.Errorf("%s: try: %v, %v", call, ok, err)
			}
			if _, err := table.Acquire(t.Context(), request(path), Shared, false); !errors.Is(err, ErrRetry) {
				t.Errorf("%s: error is %v", call, err)
			}
			time.Sleep(time.Minute)
			mustBeEmpty(t, table)
			if len(k.open) > 0 || len(k.faults) > 0 {
				t.Errorf("%d descriptors are open; %v", len(k.open), k.faults)
			}
		})
	}
}

// A call that finds the file gone is a reason to start over, not an error.
func TestStaleFile(t *testing.T) {
	for _, call := range []string{"identify", "open", "try", "wait"} {
		synctest.Test(t, func(t *testing.T) {
			k := newKernel(path)
			other := heldByAnother(t, k)
			p := &proc{kernel: k, fail: map[string]error{call: ErrRetry}}
			table := New(p, 0)
			got := make(chan Hold, 1)
			acquire(t.Context(), table, Exclusive, func(h Hold, err error) { must(t, err); got <- h })
			_, err := other.Release(path)
			must(t, err)
			h := <-got
			_, err = h.Release(path)
			must(t, err)
			mustBeEmpty(t, table)
		})
	}
}

// What cannot be downgraded stays exclusive, and is released as such.
func TestDowngradeFails(t *testing.T) {
	errFail := errors.New("it fails")
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		p := &proc{kernel: k, fail: map[string]error{"downgrade": errFail}}
		table := New(p, 0)
		h, err := table.Acquire(t.Context(), request(path), Exclusive, false)
		must(t, err)
		if err := h.Downgrade(); err != errFail {
			t.Errorf("error is %v", err)
		}
		other := New(&proc{kernel: k, pid: 1}, 0)
		if _, ok, err := tryAcquire(other, request(path), Shared); ok || err != nil {
			t.Errorf("a reader's try: %v, %v", ok, err)
		}
		got := make(chan Hold, 1)
		acquire(t.Context(), table, Shared, func(h Hold, err error) { must(t, err); got <- h })
		if len(got) > 0 {
			t.Error("a reader is inside with a writer")
		}
		_, err = h.Release(path)
		must(t, err)
		h = <-got
		_, err = h.Release(path)
		must(t, err)
		mustBeEmpty(t, table)
	})
}
