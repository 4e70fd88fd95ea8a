package table

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// holdBack lets system calls happen at once, but those called name only when told to.
func holdBack(k *kernel, name string) (open func()) {
	c := make(chan bool)
	k.setSched(func(call *call) {
		go func() {
			if call.name == name {
				<-c
			}
			k.mu.Lock()
			call.do()
			k.mu.Unlock()
			close(call.done)
		}()
	})
	return func() { close(c) }
}

// goTry tries to get the lock, releases it if it has it, and says so.
func goTry(table *Table, mode Mode) <-chan bool {
	answer := make(chan bool, 1)
	go func() {
		h, ok, _ := tryAcquire(table, request(path), mode)
		if ok {
			_, _ = h.Release(path)
		}
		answer <- ok
	}()
	return answer
}

// heldByAnother locks the file as another process.
func heldByAnother(t *testing.T, k *kernel) Hold {
	t.Helper()
	h, err := New(&proc{kernel: k, pid: 1}, 0).Acquire(t.Context(), request(path), Exclusive, false)
	must(t, err)
	return h
}

// A try that comes while a leader asks the kernel waits for the answer, and not longer: not
// until the leader has the lock, and not until the leader gives it back.
func TestTryWaitsForTheAnswerOnly(t *testing.T) {
	for _, heldBy := range []string{"nobody", "other process"} {
		t.Run(heldBy, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newKernel(path)
				var first Hold
				if heldBy == "other process" {
					var err error
					first, err = New(&proc{kernel: k, pid: 1}, time.Hour).Acquire(t.Context(), request(path), Exclusive, false)
					must(t, err)
				}
				table := New(&proc{kernel: k}, 0)
				open := holdBack(k, "try")
				got := make(chan Hold, 1)
				acquire(t.Context(), table, Exclusive, func(h Hold, err error) {
					if err != nil {
						t.Error(err)
					}
					got <- h
				})
				answer := make(chan bool, 1)
				go func() {
					_, ok, err := tryAcquire(table, request(path), Exclusive)
					if ok || err != nil {
						t.Errorf("try: %v, %v", ok, err)
					}
					answer <- true
				}()
				synctest.Wait()
				select {
				case <-answer:
					t.Fatal("the try did not wait for the answer")
				default:
				}
				open()
				synctest.Wait()
				select {
				case <-answer:
				default:
					t.Error("the try waits for the lock")
				}
				if first != (Hold{}) {
					_, err := first.Release(path)
					must(t, err)
				}
				h := <-got
				_, err := h.Release(path)
				must(t, err)
				time.Sleep(time.Hour)
				mustBeEmpty(t, table)
			})
		})
	}
}

// unsure is a System whose tries lock the file and then fail.
type unsure struct{ *proc }

type unsureFile struct{ *descriptor }

var errUnsure = errors.New("state is not known")

func (u unsure) Open(path string, mode Mode) (File, ID, error) {
	f, id, err := u.proc.Open(path, mode)
	if err != nil {
		return nil, id, err
	}
	return unsureFile{f.(*descriptor)}, id, nil
}

func (f unsureFile) TryLock(mode Mode) (bool, error) {
	_, _ = f.descriptor.TryLock(mode)
	return false, errUnsure
}

// After an error nobody knows what is locked: it is unlocked before it is closed.
func TestUnlockAfterError(t *testing.T) {
	k := newKernel(path)
	table := New(unsure{&proc{kernel: k}}, 0)
	if _, err := table.Acquire(context.Background(), request(path), Exclusive, false); !errors.Is(err, errUnsure) {
		t.Errorf("error is %v", err)
	}
	if len(k.faults) > 0 || len(k.open) > 0 {
		t.Errorf("%v; %d open", k.faults, len(k.open))
	}
}

// An error of close comes to light, also if there is more to close by then.
func TestCloseErrorBesideAStray(t *testing.T) {
	errFail := errors.New("it fails")
	k := newKernel(path)
	p := &proc{kernel: k, fail: map[string]error{}}
	table := New(p, 0)
	h, err := table.Acquire(context.Background(), request(path), Exclusive, false)
	must(t, err)
	p.fail["close"] = errFail
	k.sched = func(c *call) {
		if c.name == "close" && p.fail["close"] != nil {
			k.mu.Lock()
			f, id := p.descriptor(path, Exclusive)
			k.mu.Unlock()
			table.adopt(f, id) // as one does who looked for another file
		}
		go func() {
			k.mu.Lock()
			c.do()
			k.mu.Unlock()
			close(c.done)
		}()
	}
	if _, err := h.Release(path); !errors.Is(err, errFail) {
		t.Errorf("error is %v", err)
	}
}

// A crowd in the queue of a file that is replaced opens the new one once, not each for itself,
// while somebody holds that.
func TestQueueOfAReplacedFile(t *testing.T) {
	for _, heldBy := range []string{"same process", "other process"} {
		t.Run(heldBy, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newKernel(path)
				p := &proc{kernel: k}
				table := New(p, 0)
				old, err := table.Acquire(t.Context(), request(path), Exclusive, false)
				must(t, err)
				ctx, cancel := context.WithCancel(t.Context())
				for range 1000 {
					acquire(ctx, table, Exclusive, func(h Hold, err error) {
						if err == nil {
							_, _ = h.Release(path)
						}
					})
				}
				k.mu.Lock()
				k.unlink(path)
				k.create(path)
				k.mu.Unlock()
				holder := table
				if heldBy == "other process" {
					holder = New(&proc{kernel: k, pid: 1}, 0)
				}
				h, err := holder.Acquire(t.Context(), request(path), Exclusive, false)
				must(t, err)
				_, err = old.Release(path)
				must(t, err)
				synctest.Wait()
				n := 0
				k.mu.Lock()
				for _, d := range k.open {
					if d.proc == p {
						n++
					}
				}
				k.mu.Unlock()
				if n > 1 {
					t.Errorf("%d descriptors are open", n)
				}
				cancel()
				_, err = h.Release(path)
				must(t, err)
				synctest.Wait()
				mustBeEmpty(t, table)
			})
		})
	}
}

// A goroutine that opens a file which another one has locked meanwhile does not close it before that is
// released: where locks belong to the process, the lock would be lost.
func TestSecondDescriptorStaysOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k, ownsLocks: true}, time.Hour) // what is created stays open
		open := holdBack(k, "open")
		late := make(chan Hold, 1)
		acquire(t.Context(), table, Exclusive, func(h Hold, err error) { must(t, err); late <- h })
		k.mu.Lock()
		k.unlink(path) // it has looked already
		k.mu.Unlock()
		h, err := table.Acquire(t.Context(), request(path), Exclusive, false) // which creates the file
		must(t, err)
		open()
		synctest.Wait()
		_, err = h.Release(path)
		must(t, err)
		h = <-late
		_, err = h.Release(path)
		must(t, err)
		time.Sleep(3 * time.Hour)
		mustBeEmpty(t, table)
		if len(k.faults) > 0 || len(k.open) > 0 {
			t.Errorf("%v; %d open", k.faults, len(k.open))
		}
	})
}

// A name that has come to mean another file, while the old one was still open, leads nobody to open
// what stays open.
func TestStaleGuesses(t *testing.T) {
	k := newKernel(path)
	table := New(&proc{kernel: k}, time.Hour)
	h, err := table.Acquire(context.Background(), request(path), Exclusive, false)
	must(t, err)
	_, err = h.Release(path)
	must(t, err)
	k.mu.Lock()
	k.unlink(path)
	k.create(path)
	k.mu.Unlock()
	h, err = table.Acquire(context.Background(), request(path), Exclusive, false)
	must(t, err)
	before := len(k.open)
	for range 20 {
		if _, ok, err := tryAcquire(table, request(path), Exclusive); ok || err != nil {
			t.Errorf("try: %v, %v", ok, err)
		}
	}
	if len(k.open) > before {
		t.Errorf("%d descriptors are open, there were %d", len(k.open), before)
	}
	_, err = h.Release(path)
	must(t, err)
}

// Nobody waits for a file that the name meant a while ago, and that is still held.
func TestGuessIsWorthNoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, time.Hour)
		h, err := table.Acquire(t.Context(), request(path), Exclusive, false)
		must(t, err)
		_, err = h.Release(path)
		must(t, err)
		old, err := table.Acquire(t.Context(), request(path), Exclusive, false)
		must(t, err)
		k.mu.Lock()
		k.unlink(path)
		k.mu.Unlock()
		h, ok, err := tryAcquire(table, request(path), Exclusive)
		if !ok || err != nil {
			t.Fatalf("try: %v, %v", ok, err)
		}
		for _, h := range []Hold{old, h} {
			_, err = h.Release(path)
			must(t, err)
		}
		time.Sleep(time.Hour)
		mustBeEmpty(t, table)
	})
}

// late is a context that is done by its error before its channel says so, as any context is
// to one who is woken for another reason at the same moment.
type late struct {
	context.Context
	over atomic.Bool
}

func (l *late) Done() <-chan struct{} { return make(chan struct{}) }

func (l *late) Err() error {
	if l.over.Load() {
		return context.Canceled
	}
	return nil
}

// Whatever a waiter is given at the moment when its context is done, it passes on.
func TestContextIsDoneAsTheLockComes(t *testing.T) {
	for _, test := range []struct {
		given string
		slice time.Duration
		mode  Mode
	}{
		{"lock, with others", time.Second, Shared},
		{"lock, alone", time.Second, Exclusive},
		{"token", 0, Exclusive},
	} {
		t.Run(test.given, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newKernel(path)
				table := New(&proc{kernel: k}, 0)
				table.minSlice = test.slice
				h, err := table.Acquire(t.Context(), request(path), Exclusive, false)
				must(t, err)
				holds := make(chan Hold, 1)
				if test.mode == Shared {
					acquire(t.Context(), table, Shared, func(h Hold, err error) { must(t, err); holds <- h })
				}
				ctx := &late{Context: t.Context()}
				got := make(chan error, 1)
				acquire(ctx, table, test.mode, func(h Hold, err error) { got <- err })
				ctx.over.Store(true)
				_, err = h.Release(path)
				must(t, err)
				if err := <-got; !errors.Is(err, context.Canceled) {
					t.Fatalf("error is %v", err)
				}
				if test.mode == Shared {
					h := <-holds
					_, err = h.Release(path)
					must(t, err)
				}
				time.Sleep(time.Hour)
				if table.size() > 0 || len(k.open) > 0 {
					t.Errorf("%d entries and %d descriptors are left", table.size(), len(k.open))
				}
			})
		})
	}
}

// A context that is done wins over a lock that is there to be shared, and makes no file.
func TestContextIsDone(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	k := newKernel()
	table := New(&proc{kernel: k}, 0)
	r := request(path)
	if _, err := table.Acquire(ctx, r, Shared, false); !errors.Is(err, context.Canceled) || k.names[path] != nil {
		t.Errorf("error is %v, file %v", err, k.names[path])
	}
	h, err := table.Acquire(context.Background(), r, Shared, false)
	must(t, err)
	if _, err := table.Acquire(ctx, r, Shared, false); !errors.Is(err, context.Canceled) {
		t.Fatalf("error is %v", err)
	}
	_, err = h.Release(path)
	must(t, err)
	mustBeEmpty(t, table)
}

// A try does not wait beside one who waits for another process.
func TestTryBesideAWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		h := heldByAnother(t, k)
		table := New(&proc{kernel: k}, 0)
		ctx, cancel := context.WithCancel(t.Context())
		acquire(ctx, table, Exclusive, func(Hold, error) {})
		answer := goTry(table, Exclusive)
		synctest.Wait()
		select {
		case ok := <-answer:
			if ok {
				t.Error("it has the lock")
			}
		default:
			t.Error("the try waits")
		}
		cancel()
		_, err := h.Release(path)
		must(t, err)
		synctest.Wait()
	})
}

// A try that meets a release waits for its end, also if the one who releases had to wait for
// the lock.
func TestTryMeetsARelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		other := heldByAnother(t, k)
		table := New(&proc{kernel: k}, 0)
		holds := make(chan Hold, 1)
		acquire(t.Context(), table, Exclusive, func(h Hold, err error) { must(t, err); holds <- h })
		_, err := other.Release(path)
		must(t, err)
		h := <-holds
		open := holdBack(k, "unlock")
		go func() { _, _ = h.Release(path) }()
		synctest.Wait()
		answer := goTry(table, Exclusive)
		synctest.Wait()
		open()
		if !<-answer {
			t.Error("the try has failed though the lock is free")
		}
		synctest.Wait()
		mustBeEmpty(t, table)
	})
}

// A reader's try that meets a reader who has the token from one who gave up waiting gets the
// lock together with it.
func TestTryMeetsAnHeir(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		other := heldByAnother(t, k)
		table := New(&proc{kernel: k}, 0)
		ctx, cancel := context.WithCancel(t.Context())
		slow := &Request{Path: path, Options: &Options{Delay: time.Hour, MaxDelay: time.Hour}}
		go func() { _, _ = table.Acquire(ctx, slow, Exclusive, false) }()
		synctest.Wait()
		time.Sleep(10 * time.Hour) // it tries no more
		holds := make(chan Hold, 1)
		acquire(t.Context(), table, Shared, func(h Hold, err error) { must(t, err); holds <- h })
		open := holdBack(k, "try")
		cancel() // the reader leads, and tries
		synctest.Wait()
		_, err := other.Release(path)
		must(t, err)
		answer := goTry(table, Shared)
		synctest.Wait()
		open()
		if !<-answer {
			t.Error("the try has failed though nobody writes")
		}
		h := <-holds
		_, err = h.Release(path)
		must(t, err)
		synctest.Wait()
		mustBeEmpty(t, table)
	})
}

// A try that comes while a leader locks the file, behind one that waits, fails once the file is locked.
func TestTryBehindAWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, 0)
		open := holdBack(k, "try")
		holds := make(chan Hold, 2)
		keep := func(h Hold, err error) { must(t, err); holds <- h }
		acquire(t.Context(), table, Exclusive, keep)
		acquire(t.Context(), table, Exclusive, keep)
		answer := goTry(table, Exclusive)
		synctest.Wait()
		open()
		synctest.Wait()
		select {
		case ok := <-answer:
			if ok {
				t.Error("the try has the lock")
			}
		default:
			t.Error("the try waits for the lock")
		}
		for range 2 {
			h := <-holds
			_, err := h.Release(path)
			must(t, err)
		}
		synctest.Wait()
		mustBeEmpty(t, table)
	})
}

// A writer's try that comes while a reader locks the file fails, and readers behind it get in beside that.
func TestReadersBehindAWritersTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, 0)
		open := holdBack(k, "try")
		holds := make(chan Hold, 2)
		keep := func(h Hold, err error) { must(t, err); holds <- h }
		acquire(t.Context(), table, Shared, keep)
		writer := goTry(table, Exclusive)
		synctest.Wait()
		acquire(t.Context(), table, Shared, keep)
		reader := goTry(table, Shared)
		synctest.Wait()
		start := time.Now()
		open()
		if <-writer || !<-reader {
			t.Error("the writer's try has not failed, or that of a reader has")
		}
		for range 2 {
			h := <-holds
			_, err := h.Release(path)
			must(t, err)
		}
		if d := time.Since(start); d > 0 {
			t.Errorf("it took %v", d)
		}
		mustBeEmpty(t, table)
	})
}

// Where the kernel cannot wait, a process tries: as often as the request says, and not in step with
// others.
func TestPolling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		_, err := New(&proc{kernel: k, pid: 1, ownsLocks: true}, 0).Acquire(t.Context(), request(path), Exclusive, false)
		must(t, err)
		table := New(&proc{kernel: k, ownsLocks: true}, 0)
		var tries []time.Time
		k.sched = func(c *call) {
			if c.name == "try" {
				tries = append(tries, time.Now())
			}
			k.mu.Lock()
			c.do()
			k.mu.Unlock()
			close(c.done)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		r := &Request{Path: path, Options: &Options{Delay: 10 * time.Millisecond, MaxDelay: 100 * time.Millisecond}}
		if _, err := table.Acquire(ctx, r, Exclusive, false); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error is %v", err)
		}
		tries = tries[20:] // the first are closer
		apart := map[time.Duration]bool{}
		for i := 1; i < len(tries); i++ {
			d := tries[i].Sub(tries[i-1])
			if d < 50*time.Millisecond || d > 100*time.Millisecond {
				t.Fatalf("tries are %v apart", d)
			}
			apart[d] = true
		}
		if len(apart) < 100 {
			t.Errorf("%d tries at %d intervals", len(tries), len(apart))
		}
	})
}

// Who gives up right after it has created the file leaves no descriptor behind.
func TestCreatorGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel()
		table := New(&proc{kernel: k}, time.Millisecond)
		open := holdBack(k, "create")
		ctx := &late{Context: t.Context()}
		got := make(chan error, 1)
		acquire(ctx, table, Exclusive, func(_ Hold, err error) { got <- err })
		ctx.over.Store(true)
		open()
		if err := <-got; !errors.Is(err, context.Canceled) {
			t.Errorf("error is %v", err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if len(k.open) > 0 || table.size() > 0 {
			t.Errorf("%d descriptors are open, %d entries", len(k.open), table.size())
		}
	})
}

// When unlock fails, only close can free the lock: the descriptor does not stay open.
func TestDescriptorIsClosedAfterAnError(t *testing.T) {
	k := newKernel(path)
	p := &proc{kernel: k, fail: map[string]error{}}
	table := New(p, time.Hour)
	h, err := table.Acquire(context.Background(), request(path), Exclusive, false)
	must(t, err)
	p.fail["unlock"] = errUnsure
	if _, err := h.Release(path); err != errUnsure {
		t.Errorf("error is %v", err)
	}
	if len(k.open) > 0 {
		t.Error("the descriptor is open")
	}
}

// A process that was kept from running for some milliseconds, as schedulers and the hosts of virtual
// machines do, finds the slices of a busy one as short as before: that has not taken itself to be alone.
func TestShortSlicesBesideOneHeldUp(t *testing.T) {
	const hold = 100 * time.Microsecond
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		busy, other := New(&proc{kernel: k}, 0), New(&proc{kernel: k, pid: 1}, 0)
		ctx, cancel := context.WithCancel(t.Context())
		var loops sync.WaitGroup
		for range 3 {
			loops.Go(func() {
				for {
					h, err := busy.Acquire(ctx, request(path), Exclusive, false)
					if err != nil {
						return
					}
					time.Sleep(hold)
					if _, err := h.Release(path); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for heldUp := time.Duration(0); heldUp < 15*time.Millisecond; heldUp += 700 * time.Microsecond {
			time.Sleep(heldUp)
			start := time.Now()
			h, err := other.Acquire(ctx, request(path), Exclusive, false)
			must(t, err)
			if d := time.Since(start); d > minSlice+yieldTime+hold {
				t.Errorf("after %v it waits for %v", heldUp, d)
			}
			time.Sleep(minSlice) // its own turn, in which it is seen
			_, err = h.Release(path)
			must(t, err)
		}
		cancel()
		loops.Wait()
	})
}
