package table

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// These tests are a model check of the real code: its system calls happen one at a time, in every order
// that differs from running one goroutine after another by a few preemptions. Time passes only when
// nobody can do anything. A recheck happens only where a scenario has it happen, so that it helps
// nobody whose wake-up was lost.

// A scenario is what processes do with one file.
type scenario struct {
	name      string
	ownsLocks bool          // the form of locks
	slice     time.Duration // of a process that hands the lock on; 0 is none
	actors    []actor
	// Each of these happens once, at any time or never: a process is killed, an actor's context is
	// canceled, a process has a recheck, the file is removed.
	kill    []int
	cancel  []int
	recheck []int
	unlink  bool
}

// An actor is a goroutine of process pid that acquires the lock and releases it.
type actor struct {
	pid        int
	mode       Mode
	background bool // its context cannot be done
	try        bool // it does not wait
	holds      int  // how often it does all, if not once
	downgrade  bool // it goes on as a reader before it releases
}

const path = "lock"

func TestExplore(t *testing.T) {
	w, r := actor{mode: Exclusive}, actor{mode: Shared}
	in := func(pid int, a actor) actor { a.pid = pid; return a }
	background := func(a actor) actor { a.background = true; return a }
	try := func(a actor) actor { a.try = true; return a }
	down := func(a actor) actor { a.downgrade = true; return a }
	times := func(n int, a actor) actor { a.holds = n; return a }

	scenarios := []scenario{
		{name: "two writers, one process", actors: []actor{w, w}},
		{name: "two writers, two processes", actors: []actor{w, in(1, w)}},
		{name: "three writers, two processes", actors: []actor{w, w, in(1, w)}},
		{name: "writers that never give up", actors: []actor{background(w), in(1, background(w)), in(1, w)}},
		{name: "readers and a writer, one process", actors: []actor{r, r, w}},
		{name: "readers and a writer, two processes", actors: []actor{r, r, in(1, w)}},
		{name: "readers, two processes", actors: []actor{r, in(1, r), in(1, r)}},
		{name: "tries", actors: []actor{try(w), try(r), in(1, w)}},
		{name: "tries of readers", actors: []actor{try(r), try(r), in(1, try(r))}},
		{name: "again and again", actors: []actor{times(2, w), in(1, times(2, w))}},
		{name: "again and again, three processes", actors: []actor{times(2, w), in(1, w), in(2, r)}},
		{name: "canceled in the queue", actors: []actor{w, w, r}, cancel: []int{1}},
		{name: "canceled writer before a reader", actors: []actor{r, w, r}, cancel: []int{1}},
		{name: "canceled leader", actors: []actor{in(1, w), w, w}, cancel: []int{1}},
		{name: "canceled leader and follower", actors: []actor{in(1, w), w, r}, cancel: []int{1, 2}},
		{name: "pending", actors: []actor{r, in(1, r), in(2, w)}},
		{name: "pending of a writer that never gives up", actors: []actor{r, in(1, r), in(2, background(w))}},
		{name: "pending and a queue", actors: []actor{r, r, w, in(1, w)}},
		{name: "pending of a canceled writer", actors: []actor{r, r, in(1, w), in(1, r)}, cancel: []int{2}},
		{name: "pending of a killed writer", actors: []actor{r, in(1, r), in(2, w)}, kill: []int{2}},
		{name: "downgrade", actors: []actor{down(w), r, in(1, w), in(1, r)}},
		{name: "downgrade in a queue", actors: []actor{down(w), r, w, in(1, r)}},
		{name: "downgrade and tries", actors: []actor{down(w), try(r), try(w)}},
		{name: "queues in two processes", actors: []actor{w, w, in(1, w), in(1, r)}},
		{name: "killed holder", actors: []actor{w, in(1, w)}, kill: []int{0}},
		{name: "killed process with a queue", actors: []actor{w, r, in(1, w)}, kill: []int{0}},
		{name: "killed before one that never gives up", actors: []actor{w, in(1, background(w))}, kill: []int{0}},
		{name: "removed file", actors: []actor{w, w}, unlink: true},
		{name: "removed file, two processes", actors: []actor{w, in(1, w)}, unlink: true},
		{name: "removed file, used again", actors: []actor{times(2, w), in(1, w)}, unlink: true},
		{name: "removed file, readers", actors: []actor{r, r, in(1, w)}, unlink: true},
		{name: "removed file, tries", actors: []actor{try(w), in(1, try(w))}, unlink: true},
		{name: "canceled writers of two processes", actors: []actor{in(2, w), w, in(1, w)}, cancel: []int{1, 2}},
		{name: "recheck of a removed file", actors: []actor{in(1, w), w, w}, unlink: true, recheck: []int{0}},
		{name: "recheck and cancellation", actors: []actor{in(1, w), w, r}, cancel: []int{1}, recheck: []int{0}},
		{name: "recheck of a writer among readers", actors: []actor{in(1, r), in(2, r), w}, cancel: []int{2}, recheck: []int{0}},
		{name: "recheck of readers", actors: []actor{r, r, in(1, w)}, cancel: []int{2}, recheck: []int{0, 1}},
		{name: "recheck of readers and a writer", actors: []actor{r, w, r}, cancel: []int{1}, recheck: []int{0}},
	}
	for _, s := range scenarios {
		for _, s.ownsLocks = range []bool{false, true} {
			for _, s.slice = range []time.Duration{0, time.Millisecond} {
				t.Run(fmt.Sprintf("%s/ownsLocks=%v,slice=%v", s.name, s.ownsLocks, s.slice), func(t *testing.T) {
					explore(t, s)
				})
			}
		}
	}
}

// maxPreemptions is how often a run may leave a goroutine that could go on. Few bugs need more than two
// (Musuvathi and Qadeer, Iterative Context Bounding, PLDI 2007). That takes half a minute, so by default
// there is only one; CI sets FASTENERS_TEST_STRICT and explores them all.
var maxPreemptions = 2

func preemptions() int {
	if os.Getenv("FASTENERS_TEST_STRICT") == "" {
		return 1
	}
	return maxPreemptions
}

// explore runs the scenario in all orders: depth first, by what was chosen at each step.
func explore(t *testing.T, s scenario) {
	runs := 0
	for prefix := []int(nil); ; runs++ {
		r := &run{scenario: s, prefix: prefix}
		synctest.Test(t, func(*testing.T) { r.run() })
		if len(r.faults) > 0 {
			t.Fatalf("run %d:\n%s\n\n%s", runs, strings.Join(r.faults, "\n"), strings.Join(r.trace, "\n"))
		}
		// The next run differs in the last step that could have gone another way.
		i := len(r.choices) - 1
		for i >= 0 && r.choices[i].took+1 >= r.choices[i].of {
			i--
		}
		if i < 0 {
			break
		}
		prefix = nil
		for _, c := range r.choices[:i] {
			prefix = append(prefix, c.took)
		}
		prefix = append(prefix, r.choices[i].took+1)
	}
	t.Logf("%d runs", runs+1)
}

type run struct {
	scenario
	*kernel
	prefix  []int
	choices []struct{ took, of int }
	spent   int // preemptions
	pending []*call
	last    *proc // whose call was last
	trace   []string
	states  []string // of the actors
	inside  []hold
}

// A hold is an actor that has the lock.
type hold struct {
	actor int
	id    ID
	mode  Mode
}

func (r *run) run() {
	r.kernel = newKernel(path)
	r.kernel.schedWaits = true
	r.kernel.sched = func(c *call) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.pending = append(r.pending, c)
	}

	var procs []*proc
	var tables []*Table
	for _, a := range r.actors {
		for a.pid >= len(procs) {
			p := &proc{kernel: r.kernel, pid: len(procs), ownsLocks: r.ownsLocks}
			procs = append(procs, p)
			table := New(p, time.Millisecond)
			table.minSlice, table.maxSlice, table.firstRecheck, table.freshHolder = r.slice, r.slice, time.Hour, -1
			tables = append(tables, table)
		}
	}
	cancels := make([]context.CancelFunc, len(r.actors))
	r.states = make([]string, len(r.actors))
	for i, a := range r.actors {
		ctx := context.Background()
		cancels[i] = func() {}
		if !a.background {
			ctx, cancels[i] = context.WithCancel(ctx)
		}
		request := &Request{Path: path, Options: &Options{Delay: time.Millisecond, MaxDelay: time.Millisecond}}
		r.states[i] = "waits"
		go func() {
			for range max(1, a.holds) {
				r.act(ctx, i, procs[a.pid], tables[a.pid], request)
			}
			r.mu.Lock()
			r.states[i] = "over"
			r.mu.Unlock()
		}()
	}

	// What may happen once.
	type incident struct {
		name string
		do   func()
	}
	var incidents []incident
	for _, i := range r.cancel {
		incidents = append(incidents, incident{fmt.Sprintf("cancel actor %d", i), cancels[i]})
	}
	if r.scenario.unlink {
		incidents = append(incidents, incident{"remove the file", func() { r.kernel.unlink(path) }})
	}
	for _, pid := range r.recheck {
		incidents = append(incidents, incident{fmt.Sprintf("recheck in process %d", pid), func() {
			tables[pid].mu.Lock()
			defer tables[pid].mu.Unlock()
			for _, e := range tables[pid].entries {
				go e.recheckNow()
			}
		}})
	}
	for _, pid := range r.kill {
		incidents = append(incidents, incident{fmt.Sprintf("kill process %d", pid), func() {
			p := procs[pid]
			reap := p.kill()
			r.inside = slices.DeleteFunc(r.inside, func(h hold) bool { return r.actors[h.actor].pid == pid })
			for i, a := range r.actors {
				if a.pid == pid {
					cancels[i]() // so that its goroutines end
				}
			}
			incidents = append(incidents, incident{fmt.Sprintf("process %d is gone", pid), reap})
		}})
	}

	for idle := 0; ; {
		synctest.Wait()
		if len(r.trace) > 1000 {
			r.fault("no end: actors are %v", r.states)
			break
		}
		r.mu.Lock()
		var can []*call
		for _, c := range r.pending {
			if c.ready() {
				can = append(can, c)
			}
		}
		// To go on with the same process is the first choice, and free.
		slices.SortStableFunc(can, func(a, b *call) int {
			if a.proc != b.proc {
				if a.proc == r.last {
					return -1
				}
				if b.proc == r.last {
					return 1
				}
				return a.proc.pid - b.proc.pid
			}
			return strings.Compare(a.name, b.name)
		})
		over := !slices.ContainsFunc(r.states, func(s string) bool { return s != "over" })
		of := len(can) + len(incidents)
		if len(can) > 0 && r.spent >= preemptions() {
			of = 1
		}
		if len(can) == 0 && over {
			// What is left of the incidents makes no difference.
			incidents = slices.DeleteFunc(incidents, func(i incident) bool { return !strings.HasSuffix(i.name, "is gone") })
			of = min(1, len(incidents))
		}
		r.mu.Unlock()

		if of == 0 {
			// Time passes: for descriptors that stay open a little, and for those who poll.
			if over && idle > 0 {
				break
			}
			if idle++; idle > 10 {
				r.fault("lost wake-up: actors are %v", r.states)
				break
			}
			r.trace = append(r.trace, "- time passes")
			time.Sleep(time.Millisecond << idle)
			continue
		}
		idle = 0
		took := 0
		if n := len(r.choices); n < len(r.prefix) {
			took = min(r.prefix[n], of-1)
		}
		r.choices = append(r.choices, struct{ took, of int }{took, of})
		if took > 0 && len(can) > 0 {
			r.spent++
		}
		r.mu.Lock()
		if took < len(can) {
			c := can[took]
			r.last = c.proc
			r.pending = slices.DeleteFunc(r.pending, func(p *call) bool { return p == c })
			c.do()
			r.trace = append(r.trace, fmt.Sprintf("process %d: %s", c.proc.pid, c.name))
			close(c.done)
			r.mu.Unlock()
			continue
		}
		i := incidents[took-len(can)]
		incidents = slices.DeleteFunc(incidents, func(j incident) bool { return j.name == i.name })
		r.trace = append(r.trace, i.name)
		r.mu.Unlock()
		i.do()
	}

	// Nothing is left behind.
	if len(r.open) > 0 {
		r.fault("%d descriptors are open", len(r.open))
	}
	for _, ino := range r.files {
		if len(ino.locks) > 0 {
			r.fault("locks are left: %v", ino.locks)
		}
		if ino.pending != nil {
			r.fault("pending is locked")
		}
	}
	for pid, table := range tables {
		if n := table.size(); n > 0 && !procs[pid].dead {
			r.fault("process %d has %d entries", pid, n)
		}
	}
	// So that the goroutines end, after a fault.
	for _, cancel := range cancels {
		cancel()
	}
	for _, p := range procs {
		p.dead = true
	}
	for range 1000 {
		synctest.Wait()
		r.mu.Lock()
		for _, c := range r.pending {
			c.do()
			close(c.done)
		}
		r.pending = nil
		r.mu.Unlock()
	}
}

// act acquires and releases the lock as actor i.
func (r *run) act(ctx context.Context, i int, p *proc, table *Table, request *Request) {
	a := r.actors[i]
	r.mu.Lock()
	start := r.now
	r.mu.Unlock()
	var h Hold
	var err error
	ok := true
	if a.try {
		h, ok, err = tryAcquire(table, request, a.mode)
		if !ok && err == nil && r.onlyReaders() {
			r.fault("actor %d: a reader's try has failed though nobody writes", i)
		}
	} else {
		h, err = table.Acquire(ctx, request, a.mode, false)
	}
	if err != nil || !ok {
		if err != nil && ctx.Err() == nil && !p.dead {
			r.mu.Lock()
			r.fault("actor %d: %v", i, err)
			r.mu.Unlock()
		}
		return
	}
	id := h.entry.id
	r.mu.Lock()
	if !p.dead {
		for _, other := range r.inside {
			if other.id == id && (a.mode == Exclusive || other.mode == Exclusive) {
				r.fault("actor %d is inside with actor %d", i, other.actor)
			}
		}
		// While this actor was about it, and the file was locked, it had the name.
		if ino := r.files[id]; ino.removed > 0 && ino.removed < max(start, ino.locked[p]) {
			r.fault("actor %d has locked a removed file", i)
		}
		r.inside = append(r.inside, hold{i, id, a.mode})
		r.states[i] = "is inside"
		r.trace = append(r.trace, fmt.Sprintf("actor %d is inside", i))
	}
	r.mu.Unlock()
	_ = p.call("work", always, func() error { return nil })
	if a.downgrade {
		if err := h.Downgrade(); err != nil && !p.dead {
			r.mu.Lock()
			r.fault("actor %d: downgrade: %v", i, err)
			r.mu.Unlock()
		}
		r.mu.Lock()
		for j := range r.inside {
			if r.inside[j].actor == i {
				r.inside[j].mode = Shared
			}
		}
		r.mu.Unlock()
		_ = p.call("work", always, func() error { return nil })
	}
	r.mu.Lock()
	r.inside = slices.DeleteFunc(r.inside, func(other hold) bool { return other.actor == i })
	r.states[i] = "waits"
	r.mu.Unlock()

	named, err := h.Release(path)
	if !p.dead && (err != nil || !named && !r.scenario.unlink) {
		r.mu.Lock()
		r.fault("actor %d: release: %v, %v", i, named, err)
		r.mu.Unlock()
	}
}

func (r *run) onlyReaders() bool {
	return !slices.ContainsFunc(r.actors, func(a actor) bool { return a.mode == Exclusive })
}
