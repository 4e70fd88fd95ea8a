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
		h, ok = d.heldBy(d.ino, d.owner())
		return nil
	})
	return h, ok
}

// heldBy returns a lock that asking does not own, as the process sees it.
func (p *proc) heldBy(ino *inode, asking any) (Holder, bool) {
	for owner, mode := range ino.locks {
		if owner == asking {
			continue
		}
		if d, ok := owner.(*descriptor); ok {
			owner = d.proc
		}
		h := Holder{Mode: mode}
		if other, ok := owner.(*proc); ok { // and not another program
			h.PID = other.pid + 1000
			if other.pid == p.pid { // perhaps with a table of its own
				h.PID = pid
			}
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
		if h, ok := p.heldBy(p.inodes[id], nil); ok {
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
		_, got, err := table.Holders(context.Background(), path, true)
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
			if _, holders, err := table.Holders(context.Background(), "not there", true); holders != nil || err != nil {
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
			if _, holders, _ := table.Holders(context.Background(), path, false); len(holders) != 1 {
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
	if _, holders, err := table.Holders(context.Background(), path, true); len(holders) > 0 || err != fs.ErrPermission {
		t.Errorf("nobody holds the lock: %v, %v", holders, err)
	}
	h := heldByAnother(t, k)
	if _, holders, err := table.Holders(context.Background(), path, true); len(holders) != 1 || err != nil {
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
				_, holders, err := table.Holders(context.Background(), path, true)
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
				_, _, err := table.Holders(context.Background(), "slow", true)
				asked <- err
			}()
		}
		synctest.Wait()
		k.setIntercept(nil)
		if n := len(k.open); n != 1 {
			t.Errorf("%d descriptors for one question", n)
		}
		_, _, err := table.Holders(context.Background(), "fast", true)
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

// A waiter that asks who holds the lock, as for a notice, uses one descriptor again in between.
// Where locks belong to the process, the other one stays: the leader may acquire the lock at any
// moment, and closing it would drop that.
func TestDescriptorOfAQuestion(t *testing.T) {
	for ownsLocks, want := range map[bool]int{false: 1, true: 2} {
		synctest.Test(t, func(t *testing.T) {
			k := newKernel(path)
			h := heldByAnother(t, k)
			p := &proc{kernel: k, ownsLocks: ownsLocks}
			table := New(p, 0)
			waiter := goAcquire(t.Context(), table, request(path), Exclusive)
			count := func() int {
				k.mu.Lock()
				defer k.mu.Unlock()
				return len(p.descriptors())
			}
			ask := func() {
				for range 3 {
					_, _, err := table.Holders(t.Context(), path, true)
					must(t, err)
					if n := count(); n != want {
						t.Errorf("locks belong to the process: %t; %d descriptors, want %d", ownsLocks, n, want)
					}
				}
			}
			ask()
			release(t, h)
			own := waiter.mustHold(t)
			ask() // it does not drop the lock: mustBeClean would report that
			release(t, own)
			mustBeEmpty(t, table)
			mustBeClean(t, k)
		})
	}
}

// A question that fails may not have shown that locks do not belong to the process.
func TestDescriptorOfAFailedQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		p := &proc{kernel: k, ownsLocks: true, fail: map[string]error{"holders": fs.ErrPermission}}
		table := New(p, 0)
		h := acquire(t, table, Exclusive)
		if _, holders, err := table.Holders(t.Context(), path, true); len(holders) != 1 || err != nil {
			t.Errorf("holders are %v, %v", holders, err)
		}
		release(t, h)
		mustBeEmpty(t, table)
		mustBeClean(t, k)
	})
}

// Those that ask while another goroutine has its answer share the next one, which begins after
// they have come.
func TestQuestionsShareAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path, "other name")
		k.paths["other name"] = k.paths[path]
		table := New(&proc{kernel: k}, 0)
		h := heldByAnother(t, k)
		turn, asked := make(chan bool), 0
		k.setIntercept(func(c *call) {
			if c.name == "holders" {
				asked++
				<-turn
			}
			c.perform()
		})
		const n = 20
		answers := make(chan int)
		ask := func(path string) {
			_, holders, err := table.Holders(t.Context(), path, true)
			if err != nil {
				t.Error(err)
			}
			answers <- len(holders)
		}
		go ask(path)
		synctest.Wait()
		release(t, h) // the first question may be answered in either way
		for i := range n {
			go ask([]string{path, "other name"}[i%2])
		}
		synctest.Wait()
		if asked != 1 {
			t.Errorf("%d questions at the same time", asked)
		}
		turn <- true
		receive(t, answers)
		synctest.Wait()
		go ask(path) // it comes too late to share the second answer
		synctest.Wait()
		turn <- true
		for range n {
			if found := receive(t, answers); found != 0 {
				t.Errorf("%d holders, after the release", found)
			}
		}
		synctest.Wait()
		turn <- true
		receive(t, answers)
		if asked != 3 {
			t.Errorf("the system was asked %d times, want 3", asked)
		}
		k.setIntercept(nil)
		mustBeEmpty(t, table)
		mustBeClean(t, k)
	})
}

// No answer is older than the question.
func TestAnswerIsNotOlder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, 0)
		h := heldByAnother(t, k)
		// The system answers, but is slow to say so.
		answered := make(chan bool)
		k.setIntercept(func(c *call) {
			c.perform()
			if c.name == "holders" {
				<-answered
			}
		})
		first, second := make(chan int, 1), make(chan int, 1)
		ask := func(answer chan int) {
			_, holders, err := table.Holders(t.Context(), path, true)
			if err != nil {
				t.Error(err)
			}
			answer <- len(holders)
		}
		go ask(first)
		synctest.Wait()
		release(t, h)
		go ask(second)
		synctest.Wait()
		close(answered)
		if n := receive(t, first); n != 1 {
			t.Errorf("%d holders before the release", n)
		}
		if n := receive(t, second); n != 0 {
			t.Errorf("%d holders after the release", n)
		}
		k.setIntercept(nil)
		mustBeEmpty(t, table)
	})
}

// An error that comes from one path is none of another path of the file.
func TestQuestionsByTwoPaths(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		k.paths["other name"] = k.paths[path]
		p := &proc{kernel: k, fail: map[string]error{}}
		table := New(p, 0)
		turn := make(chan bool)
		k.setIntercept(func(c *call) {
			if c.name == "holders" {
				<-turn
			}
			c.perform()
		})
		errs := make(chan error, 5)
		ask := func(path string) {
			_, _, err := table.Holders(t.Context(), path, true)
			errs <- err
		}
		go ask(path)
		synctest.Wait()
		for range 2 {
			go ask("other name")
			go ask(path)
		}
		synctest.Wait()
		p.failNext("open", fs.ErrPermission)
		turn <- true
		must(t, receive(t, errs))
		synctest.Wait() // one of the four asks, and cannot open the file
		close(turn)
		failed := 0
		for range 4 {
			if err := receive(t, errs); err != nil {
				failed++
			}
		}
		if failed != 2 {
			t.Errorf("%d questions failed, want the two by one path, which share an answer", failed)
		}
		k.setIntercept(nil)
		mustBeEmpty(t, table)
	})
}

// A question whose asker does not want to know any more is not put to the system.
func TestQuestionIsCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, 0)
		resume := k.holdBack("holders")
		ctx, cancel := context.WithCancel(t.Context())
		const n = 100
		errs := make(chan error, n)
		first := make(chan error)
		go func() {
			_, _, err := table.Holders(t.Context(), path, true)
			first <- err
		}()
		synctest.Wait()
		for range n {
			go func() {
				_, _, err := table.Holders(ctx, path, true)
				errs <- err
			}()
		}
		synctest.Wait()
		cancel()
		for range n {
			if err := receive(t, errs); err != context.Canceled {
				t.Errorf("error is %v", err)
			}
		}
		if _, _, err := table.Holders(ctx, path, true); err != context.Canceled {
			t.Errorf("error is %v", err)
		}
		resume()
		must(t, receive(t, first))
		mustBeEmpty(t, table)
		mustBeClean(t, k)
	})
}

// The process can hold the lock by other means than its table: through a file that it was given,
// or another copy of this package. It is named once, and the holds of the table once.
func TestHoldersByOtherMeans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table, other := New(&proc{kernel: k}, 0), New(&proc{kernel: k}, 0)
		this := Holder{PID: pid, Mode: Exclusive}
		h := acquire(t, other, Exclusive)
		checkHolders(t, table, this)
		waiter := goAcquire(t.Context(), table, request(path), Exclusive)
		waiting := Holder{PID: pid, Mode: Exclusive, Waiting: true, Since: time.Now()}
		checkHolders(t, table, this, waiting)
		release(t, h)
		h = waiter.mustHold(t)
		this.Since = time.Now()
		checkHolders(t, table, this)
		release(t, h)
		checkHolders(t, table)

		readers := []Hold{acquire(t, table, Shared), acquire(t, other, Shared)}
		checkHolders(t, table, Holder{PID: pid, Mode: Shared, Since: time.Now()})
		release(t, readers[0])
		time.Sleep(time.Second)
		checkHolders(t, table, Holder{PID: pid, Mode: Shared})
		release(t, readers[1])
		checkHolders(t, table)
		mustBeEmpty(t, table)
		mustBeEmpty(t, other)
		mustBeClean(t, k)
	})
}

// A hold of the table that ends as the system answers is no hold by other means.
func TestHoldersDuringARelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(path)
		table := New(&proc{kernel: k}, time.Minute)
		h := acquire(t, table, Exclusive)
		time.Sleep(time.Second)
		answered := make(chan bool)
		k.setIntercept(func(c *call) {
			c.perform()
			if c.name == "holders" {
				<-answered
			}
		})
		asked := make(chan []Holder)
		go func() {
			_, holders, _ := table.Holders(t.Context(), path, true)
			asked <- holders
		}()
		synctest.Wait()
		release(t, h)
		close(answered)
		if holders := receive(t, asked); len(holders) > 0 {
			t.Errorf("holders are %v", holders)
		}
		k.setIntercept(nil)
		time.Sleep(time.Hour)
		mustBeEmpty(t, table)
	})
}
