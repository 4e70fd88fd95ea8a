package locktable

import (
	"context"
	"errors"
	"io/fs"
	"testing"
	"testing/synctest"
	"time"
)

func (d *descriptor) Holder() (h Holder, ok bool) {
	_ = d.call("holder", always, func() error {
		d.mustBeOpen("asked about")
		h, ok = d.ino.heldBy(d.owner())
		return nil
	})
	return h, ok
}

// heldBy returns a lock that asking does not own.
func (ino *inode) heldBy(asking any) (Holder, bool) {
	for owner, mode := range ino.locks {
		if owner == asking {
			continue
		}
		if d, ok := owner.(*descriptor); ok {
			owner = d.proc
		}
		h := Holder{Mode: mode}
		if p, ok := owner.(*proc); ok { // and not another program
			h.PID = p.pid + 1000
		}
		return h, true
	}
	return Holder{}, false
}

func (p *proc) Holders(id ID, f File) (holders []Holder, err error) {
	err = p.call("holders", always, func() error {
		if f != nil {
			f.(*descriptor).mustBeOpen("asked about")
		}
		if h, ok := p.inodes[id].heldBy(nil); ok && h.PID != p.pid+1000 {
			holders = append(holders, h)
		}
		return nil
	})
	return holders, err
}

// processes returns the tables of n processes, in which goroutines use the file of path.
func processes(k *kernel, n int) (tables []*Table) {
	for i := range n {
		tables = append(tables, New(&proc{kernel: k, pid: i}, 0))
	}
	return tables
}

// The error of a wait tells who holds the lock: another process, for the leader and for those
// that queue behind it, and this process, for those that queue behind a goroutine of it.
func TestWaitErrorTellsTheHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		tables := processes(k, 2)
		giveUp := func(table *Table, want Holder) {
			t.Helper()
			ctx, cancel := context.WithCancel(t.Context())
			const n = 5
			errs := make(chan error, n)
			for range n {
				go func() {
					_, err := table.Acquire(ctx, request(path), Exclusive, false)
					errs <- err
				}()
			}
			time.Sleep(time.Minute)
			cancel()
			for range n {
				var err *WaitError
				if !errors.As(<-errs, &err) || err.Err != context.Canceled || len(err.Holders) != 1 {
					t.Fatalf("error is %#v", err)
				}
				h := err.Holders[0]
				if h.Since.IsZero() != want.Since.IsZero() || !h.Since.IsZero() && time.Since(h.Since) < time.Minute {
					t.Errorf("held since %v", h.Since)
				}
				h.Since = want.Since
				if h != want {
					t.Errorf("held by %+v, want %+v", h, want)
				}
			}
		}
		h := acquire(t, tables[0], Exclusive)
		giveUp(tables[1], Holder{PID: 1000, Mode: Exclusive})
		giveUp(tables[0], Holder{PID: pid, Mode: Exclusive, Since: time.Now()})
		release(t, h)
		mustBeEmpty(t, tables[1])
	})
}

// A leader that polls does not ask at the end, but from time to time.
func TestPollingLeaderKnowsTheHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		one, other := New(&proc{kernel: k, ownsLocks: true}, 0), New(&proc{kernel: k, pid: 1, ownsLocks: true}, 0)
		h := acquire(t, one, Exclusive)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := other.Acquire(ctx, request(path), Shared, false)
		var waitErr *WaitError
		if !errors.As(err, &waitErr) || len(waitErr.Holders) != 1 || waitErr.Holders[0].PID != 1000 {
			t.Errorf("error is %#v", err)
		}
		release(t, h)
	})
}

// A context that is done before any wait is no wait that has ended.
func TestNoWaitNoWaitError(t *testing.T) {
	table := New(&proc{kernel: newKernel(path)}, 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := table.Acquire(ctx, request(path), Exclusive, false); err != context.Canceled {
		t.Errorf("error is %#v", err)
	}
}

// checkHolders compares the holders, and those that wait, as table sees them, several times.
func checkHolders(t *testing.T, table *Table, want ...Holder) {
	t.Helper()
	for range 10 {
		_, got, err := table.Holders(path, true)
		must(t, err)
		if len(got) != len(want) {
			t.Fatalf("holders are %+v, want %+v", got, want)
		}
		for i := range got {
			if !got[i].Since.Equal(want[i].Since) {
				t.Errorf("holder %d since %v, want %v", i, got[i].Since, want[i].Since)
			}
			got[i].Since = want[i].Since
			if got[i] != want[i] {
				t.Errorf("holder %d is %+v, want %+v", i, got[i], want[i])
			}
		}
	}
}

// Holders has all goroutines of this process, and one descriptor, however often it is called.
func TestHoldersOfTheTable(t *testing.T) {
	for _, ownsLocks := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			k := newKernel(path)
			table := New(&proc{kernel: k, ownsLocks: ownsLocks}, 0)
			checkHolders(t, table)
			if _, holders, err := table.Holders("not there", true); holders != nil || err != nil {
				t.Errorf("holders of no file: %v, %v", holders, err)
			}
			h := acquire(t, table, Exclusive)
			own := Holder{PID: pid, Mode: Exclusive, Since: time.Now()}
			time.Sleep(time.Second)
			checkHolders(t, table, own)
			queued := goAcquire(t.Context(), table, request(path), Shared)
			reader := Holder{PID: pid, Mode: Shared, Waiting: true, Since: time.Now()}
			time.Sleep(time.Second)
			checkHolders(t, table, own, reader)
			if _, holders, _ := table.Holders(path, false); len(holders) != 1 {
				t.Errorf("without those that wait, holders are %v", holders)
			}
			if len(k.open) > 2 {
				t.Errorf("%d descriptors are open", len(k.open))
			}
			release(t, h)
			h = queued.mustHold(t)
			time.Sleep(time.Second)
			release(t, h)
			checkHolders(t, table)
			time.Sleep(time.Second)
			mustBeEmpty(t, table)
			mustBeClean(t, k)
		})
	}
}

// Another process sees the holder, and its own goroutine that waits for it.
func TestHoldersInAnotherProcess(t *testing.T) {
	for _, ownsLocks := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			k := newKernel(path)
			h := acquire(t, New(&proc{kernel: k, ownsLocks: ownsLocks}, 0), Exclusive)
			table := New(&proc{kernel: k, pid: 1, ownsLocks: ownsLocks}, 0)
			waiter := goAcquire(t.Context(), table, request(path), Exclusive)
			waiting := Holder{PID: pid, Mode: Exclusive, Waiting: true, Since: time.Now()}
			time.Sleep(time.Second)
			checkHolders(t, table, Holder{PID: 1000, Mode: Exclusive}, waiting)
			release(t, h)
			release(t, waiter.mustHold(t))
			mustBeEmpty(t, table)
			mustBeClean(t, k)
		})
	}
}

// A waiter has waited, even if its context is done only when it leads, before it can ask the
// kernel.
func TestContextIsDoneDuringYield(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, 0)
		h := acquire(t, table, Exclusive)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second+yieldTime/2)
		defer cancel()
		waiter := goAcquire(ctx, table, request(path), Exclusive)
		time.Sleep(time.Second) // the slice is over: the next leader yields
		release(t, h)
		waiter.mustFail(t, context.DeadlineExceeded)
		if !errors.As(waiter.err, new(*WaitError)) {
			t.Errorf("error is %#v", waiter.err)
		}
		mustBeEmpty(t, table)
	})
}

// If the file cannot be opened, and nothing else tells, it is not known that nobody holds the lock.
func TestHoldersOfAFileThatCannotBeOpened(t *testing.T) {
	k := newKernel(path)
	p := &proc{kernel: k, failAlways: map[string]error{"open": fs.ErrPermission}}
	table := New(p, 0)
	if _, holders, err := table.Holders(path, true); len(holders) > 0 || err != fs.ErrPermission {
		t.Errorf("nobody holds the lock: %v, %v", holders, err)
	}
	h := heldByAnother(t, k)
	if _, holders, err := table.Holders(path, true); len(holders) != 1 || err != nil {
		t.Errorf("another process holds the lock: %v, %v", holders, err)
	}
	release(t, h)
}

// If the file is replaced as Holders looks at it, Holders looks at the new one.
func TestHoldersOfReplacedFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, 0)
		for _, replace := range []func(string){k.replace, k.remove} {
			resume := k.holdBack("open")
			asked := make(chan error)
			go func() {
				_, holders, err := table.Holders(path, true)
				if len(holders) > 0 {
					t.Errorf("holders are %v", holders)
				}
				asked <- err
			}()
			synctest.Wait()
			replace(path)
			resume()
			must(t, <-asked)
			k.setIntercept(nil)
		}
		mustBeEmpty(t, table)
	})
}

// A question about one file, which can be on a server that does not answer, delays none about
// another.
func TestQuestionsAboutTwoFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel("slow", "fast")
		table := New(&proc{kernel: k}, 0)
		resume := k.holdBack("holders")
		asked := make(chan error, 2)
		for range 2 {
			go func() {
				_, _, err := table.Holders("slow", true)
				asked <- err
			}()
		}
		synctest.Wait()
		k.setIntercept(nil)
		if n := len(k.open); n != 1 {
			t.Errorf("%d descriptors for one question", n)
		}
		_, _, err := table.Holders("fast", true)
		must(t, err)
		resume()
		must(t, <-asked)
		must(t, <-asked)
		mustBeEmpty(t, table)
	})
}

// The error of a leader names the process that holds the lock as the wait ends, not the one
// that held it as the wait began.
func TestWaitErrorNamesThePresentHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		tables := processes(k, 3)
		tables[2].firstRecheck = time.Hour
		first := acquire(t, tables[0], Shared)
		r := request(path)
		r.ReaderPreference = true
		ctx, cancel := context.WithCancel(t.Context())
		writer := goAcquire(ctx, tables[2], r, Exclusive)
		second := acquire(t, tables[1], Shared)
		release(t, first)
		cancel()
		writer.mustFail(t, context.Canceled)
		var err *WaitError
		want := Holder{PID: 1001, Mode: Shared}
		if !errors.As(writer.err, &err) || len(err.Holders) != 1 || err.Holders[0] != want {
			t.Errorf("error is %#v", writer.err)
		}
		release(t, second)
		mustBeEmpty(t, tables[2])
	})
}
