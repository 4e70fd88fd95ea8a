package table

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func request(path string) *Request {
	return &Request{Path: path, Options: &Options{Delay: time.Millisecond, MaxDelay: time.Millisecond}}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// acquire acquires in a goroutine of a bubble, and returns once that has got as far as it can.
func acquire(ctx context.Context, table *Table, mode Mode, then func(Hold, error)) {
	go func() { then(table.Acquire(ctx, request(path), mode, false)) }()
	synctest.Wait()
}

// Goroutines of a process are served in order of arrival, readers that follow one another
// together, whichever of them the lock has to wait for.
func TestFirstComeFirstServed(t *testing.T) {
	for _, heldBy := range []string{"same process", "other process"} {
		t.Run(heldBy, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newKernel(path)
				table := New(&proc{kernel: k}, time.Millisecond)
				holder := table
				if heldBy == "other process" {
					holder = New(&proc{kernel: k, pid: 1}, time.Millisecond)
				}
				first, err := holder.Acquire(t.Context(), request(path), Exclusive, false)
				must(t, err)

				var mu sync.Mutex
				var order []string
				var holds []Hold
				for i, mode := range []Mode{Exclusive, Shared, Shared, Exclusive, Shared} {
					acquire(t.Context(), table, mode, func(h Hold, err error) {
						mu.Lock()
						defer mu.Unlock()
						if err != nil {
							t.Error(err)
						}
						order = append(order, fmt.Sprint(i))
						holds = append(holds, h)
					})
				}
				step := func(want ...string) {
					t.Helper()
					time.Sleep(time.Second) // of the bubble: for tries
					synctest.Wait()
					mu.Lock()
					defer mu.Unlock()
					seen := map[string]bool{}
					for _, o := range order {
						seen[o] = true
					}
					for _, w := range want {
						if !seen[w] || len(order) != len(want) {
							t.Fatalf("served: %v, want %v in any order", order, want)
						}
					}
					order = nil
				}
				release := func(n int) {
					t.Helper()
					mu.Lock()
					back := holds[:n]
					holds = holds[n:]
					mu.Unlock()
					for _, h := range back {
						_, err := h.Release(path)
						must(t, err)
					}
				}
				step()
				holds = append(holds, first)
				release(1)
				step("0")
				release(1)
				step("1", "2")
				release(1)
				step() // one reader is still inside
				release(1)
				step("3")
				release(1)
				step("4")
				release(1)
				step()
			})
		})
	}
}

// A waiter that gives up and the one who is to serve it can meet at any moment; who comes
// after them must get the lock. Here the queue is long, and everybody gives up at some time.
func TestStorm(t *testing.T) {
	for _, ownsLocks := range []bool{false, true} {
		t.Run(fmt.Sprintf("ownsLocks=%v", ownsLocks), func(t *testing.T) {
			k := newKernel()
			var wg sync.WaitGroup
			inside := map[ID]*int{} // k.mu protects it
			var tables []*Table
			for pid := range 3 {
				p := &proc{kernel: k, pid: pid, ownsLocks: ownsLocks}
				table := New(p, time.Duration(pid)*time.Millisecond)
				tables = append(tables, table)
				for g := range 20 {
					wg.Go(func() {
						name := path
						if g%5 == 0 {
							name = "read-only"
						}
						r := request(name)
						for range 100 {
							mode := Mode(1 + rand.N(2))
							ctx, cancel := context.WithTimeout(context.Background(), rand.N(3*time.Millisecond))
							h, err := table.Acquire(ctx, r, mode, false)
							cancel()
							if err != nil {
								if !errors.Is(err, context.DeadlineExceeded) {
									t.Error(err)
								}
								continue
							}
							id, weight := h.entry.id, 1
							if mode == Exclusive {
								weight = 1000
							}
							k.mu.Lock()
							if inside[id] == nil {
								inside[id] = new(int)
							}
							if *inside[id] += weight; *inside[id] > 1000 || *inside[id] == 1000 && mode == Shared {
								t.Errorf("sum of those inside is %d", *inside[id])
							}
							k.mu.Unlock()
							if rand.N(10) == 0 {
								time.Sleep(time.Millisecond)
							}
							k.mu.Lock()
							*inside[id] -= weight
							if rand.N(20) == 0 {
								k.unlink(name)
							}
							k.mu.Unlock()
							if _, err := h.Release(name); err != nil {
								t.Error(err)
							}
						}
					})
				}
			}
			wg.Wait()
			for _, table := range tables {
				mustBeEmpty(t, table)
			}
			k.mu.Lock()
			defer k.mu.Unlock()
			for _, f := range k.faults {
				t.Error(f)
			}
			if len(k.open) > 0 {
				t.Errorf("%d descriptors are open", len(k.open))
			}
		})
	}
}

// mustBeEmpty waits until the last descriptor is closed, for longer than that takes.
func mustBeEmpty(t *testing.T, table *Table) {
	t.Helper()
	for range 100_000 {
		table.mu.Lock()
		n := table.size()
		table.mu.Unlock()
		if n == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Error("entries are left")
}

// size is how much the table remembers. It is not locked.
func (t *Table) size() int { return len(t.entries) + len(t.paths) + len(t.creating) }

// However names move between files, the table knows at most one file by a name and one name of a
// file, and only of files that it has to do with.
func TestNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel("a", "b", "c")
		table := New(&proc{kernel: k}, time.Millisecond)
		for range 10_000 {
			name, other := string('a'+rune(rand.N(3))), string('a'+rune(rand.N(3)))
			switch rand.N(4) {
			case 0:
				k.names[name] = k.names[other]
			case 1:
				k.create(name)
			default:
				h, err := table.Acquire(t.Context(), request(name), Exclusive, false)
				must(t, err)
				if h.entry.id != k.names[name].id {
					t.Fatalf("%s is %v, and %v was locked", name, k.names[name].id, h.entry.id)
				}
				if rand.N(2) == 0 {
					k.names[name] = k.names[other]
				}
				_, err = h.Release(name)
				must(t, err)
			}
			time.Sleep(rand.N(time.Millisecond))
			table.mu.Lock()
			for name, e := range table.paths {
				if e.path != name || table.entries[e.id] != e {
					t.Fatalf("%q leads to an entry of %q", name, e.path)
				}
			}
			for _, e := range table.entries {
				if e.path != "" && table.paths[e.path] != e {
					t.Fatalf("%q does not lead to its entry", e.path)
				}
			}
			table.mu.Unlock()
		}
		time.Sleep(time.Second)
		mustBeEmpty(t, table)
	})
}

// When a system call of one goroutine fails, it gets the error, nothing is left behind, and
// the next one is served.
func TestFailures(t *testing.T) {
	errFail := errors.New("it fails")
	for _, name := range []string{"identify", "open", "try", "same file", "unlock", "close", "create"} {
		for _, queue := range []int{0, 2} {
			t.Run(fmt.Sprintf("%s/%d wait", name, queue), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					k := newKernel()
					if name != "create" {
						k.create(path)
					}
					p := &proc{kernel: k, fail: map[string]error{name: errFail}}
					table := New(p, 0)
					var mu sync.Mutex
					var errs []error
					held := 0
					work := func(h Hold, err error) {
						if err == nil {
							mu.Lock()
							held++
							mu.Unlock()
							_, err = h.Release(path)
						}
						if err != nil {
							mu.Lock()
							errs = append(errs, err)
							mu.Unlock()
						}
					}
					h, err := table.Acquire(t.Context(), request(path), Exclusive, false)
					for range queue {
						acquire(t.Context(), table, Exclusive, work)
					}
					work(h, err)
					time.Sleep(time.Second)
					synctest.Wait()
					if len(errs) != 1 || !errors.Is(errs[0], errFail) {
						t.Errorf("errors are %v, want one", errs)
					}
					if held < queue {
						t.Errorf("%d of %d were served", held, queue)
					}
					mustBeEmpty(t, table)
					if name != "close" && len(k.open) > 0 {
						t.Errorf("%d descriptors are open", len(k.open))
					}
					if name != "unlock" && len(k.faults) > 0 { // then close has to do
						t.Error(k.faults)
					}
				})
			})
		}
	}
}

// The descriptor of a lock that nobody holds is used again, whoever else wants the lock, and closed when
// nobody has for a while.
func TestIdleDescriptor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, time.Millisecond)
		once := func() *descriptor {
			t.Helper()
			h, err := table.Acquire(t.Context(), request(path), Exclusive, false)
			must(t, err)
			d := k.open[0]
			other := New(&proc{kernel: k, pid: 1}, 0)
			got := make(chan Hold, 1)
			acquire(t.Context(), other, Exclusive, func(h Hold, err error) { must(t, err); got <- h })
			_, err = h.Release(path)
			must(t, err)
			h = <-got
			_, err = h.Release(path)
			must(t, err)
			return d
		}
		first := once()
		for range 10 {
			time.Sleep(time.Millisecond / 2)
			if once() != first {
				t.Error("the descriptor was not used again")
			}
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if len(k.open) > 0 {
			t.Error("the descriptor of a lock that is not used stays open")
		}
		mustBeEmpty(t, table)
	})
}

// Readers and writers of a file that can be opened for one thing only take turns with
// descriptors of different kinds.
func TestDescriptorsOfOneMode(t *testing.T) {
	const path = "read-only"
	k := newKernel(path)
	table := New(&proc{kernel: k, ownsLocks: true}, time.Hour)
	for range 3 {
		for _, mode := range []Mode{Shared, Exclusive} {
			h, err := table.Acquire(t.Context(), request(path), mode, false)
			must(t, err)
			_, err = h.Release(path)
			must(t, err)
		}
	}
	if len(k.open) != 1 || len(k.faults) > 0 {
		t.Errorf("%d descriptors are open; %v", len(k.open), k.faults)
	}
}

// The file is created by one goroutine; that one may fail, or give up.
func TestCreating(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel()
		p := &proc{kernel: k, fail: map[string]error{}}
		table := New(p, 0)
		release := make(chan bool)
		k.sched = func(c *call) {
			go func() {
				if c.name == "create" {
					<-release
				}
				k.mu.Lock()
				c.do()
				k.mu.Unlock()
				close(c.done)
			}()
		}
		p.fail["create"] = fs.ErrPermission
		var mu sync.Mutex
		var errs []error
		note := func(h Hold, err error) {
			mu.Lock()
			errs = append(errs, err)
			mu.Unlock()
			if err == nil {
				_, err := h.Release(path)
				must(t, err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		acquire(t.Context(), table, Exclusive, note)
		acquire(ctx, table, Exclusive, note)
		acquire(t.Context(), table, Exclusive, note)
		cancel()
		synctest.Wait()
		if len(errs) != 1 || !errors.Is(errs[0], context.Canceled) {
			t.Fatalf("errors are %v, want that of the context", errs)
		}
		close(release)
		synctest.Wait()
		if len(errs) != 3 || errs[1] != fs.ErrPermission || errs[2] != nil {
			t.Errorf("errors are %v", errs)
		}
		mustBeEmpty(t, table)
	})
}

// A writer that waits for readers of another process keeps new ones out, also of the process in
// which one is inside, until it has had the lock or has given up.
func TestPending(t *testing.T) {
	for _, test := range []struct {
		name             string
		readerPreference bool
	}{{"preferred", false}, {"reader preference", true}} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newKernel(path)
				var tables []*Table
				for pid := range 3 {
					table := New(&proc{kernel: k, pid: pid}, 0)
					table.minSlice = 0 // who joins others has to look each time
					tables = append(tables, table)
				}
				readers, writers, others := tables[0], tables[1], tables[2]
				passes := func(want bool) {
					t.Helper()
					for _, table := range []*Table{readers, others} {
						h, ok, err := tryAcquire(table, request(path), Shared)
						if ok != want || err != nil {
							t.Errorf("a reader's try: %v, %v, want %v", ok, err, want)
						}
						if ok {
							_, err = h.Release(path)
							must(t, err)
						}
					}
				}
				inside, err := readers.Acquire(t.Context(), request(path), Shared, false)
				must(t, err)
				passes(true)

				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				for _, ctx := range []context.Context{ctx, t.Context()} {
					w := request(path)
					w.ReaderPreference = test.readerPreference
					got := make(chan error, 1)
					go func() {
						h, err := writers.Acquire(ctx, w, Exclusive, false)
						if err == nil {
							_, err = h.Release(path)
						}
						got <- err
					}()
					synctest.Wait() // it is in the way at once
					passes(test.readerPreference)
					cancel()
					synctest.Wait()
					if ctx.Err() != nil {
						if err := <-got; !errors.Is(err, context.Canceled) {
							t.Errorf("error is %v", err)
						}
						passes(true)
						continue
					}
					_, err = inside.Release(path)
					must(t, err)
					must(t, <-got)
				}
				synctest.Wait()
				passes(true)
				for _, table := range tables {
					mustBeEmpty(t, table)
				}
			})
		})
	}
}

// Readers that stand behind a writer get in beside others when it gives up, at once.
func TestReadersBehindAWriterThatGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, 0)
		inside, err := table.Acquire(t.Context(), request(path), Shared, false)
		must(t, err)
		slow := &Request{Path: path, Options: &Options{Delay: time.Hour, MaxDelay: time.Hour}}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _, _ = table.Acquire(ctx, slow, Exclusive, false) }()
		synctest.Wait()
		if _, ok, err := tryAcquire(table, request(path), Shared); ok || err != nil {
			t.Errorf("a reader passes a writer: %v, %v", ok, err)
		}
		start := time.Now()
		done := make(chan Hold)
		acquire(t.Context(), table, Shared, func(h Hold, err error) { must(t, err); done <- h })
		cancel()
		h := <-done
		if d := time.Since(start); d > 0 {
			t.Errorf("it took %v", d)
		}
		for _, h := range []Hold{h, inside} {
			_, err := h.Release(path)
			must(t, err)
		}
		mustBeEmpty(t, table)
	})
}
