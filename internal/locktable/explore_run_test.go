package locktable

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing/synctest"
	"time"
)

// A run is one run of a scenario, in one order of its system calls and incidents.
type run struct {
	scenario
	*kernel
	procs     []*proc
	tables    []*Table             // of the processes
	cancels   []context.CancelFunc // of the actors
	states    []string             // of the actors
	holders   []holder
	incidents []incident // that have not happened yet

	prefix  []int    // what to choose in the first steps
	choices []choice // what was chosen in each step
	spent   int      // preemptions so far
	calls   []*call  // that have not happened yet
	last    *proc    // whose call happened last
	naps    int      // how often time has passed since the last step
	trace   []string
}

// A choice is one of several things that can happen next.
type choice struct{ took, of int }

// A holder is an actor that holds the lock on a file.
type holder struct {
	actor int
	id    ID
	mode  Mode
}

// An incident is something that may happen once.
type incident struct {
	name string
	do   func()
	must bool // it happens in any case
}

// The states of an actor.
const (
	acquiring = "acquiring"
	holding   = "holding"
	finished  = "finished"
)

// run runs the scenario in a bubble of testing/synctest. What goes wrong is in r.faults.
func (r *run) run() {
	r.start()
	for r.step() {
	}
	r.checkLeftovers()
	r.stop()
}

// start starts the actors, whose system calls do not happen until step performs them.
func (r *run) start() {
	r.kernel = newKernel(path)
	r.interceptWaits = true
	r.intercept = func(c *call) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.calls = append(r.calls, c)
	}
	for _, a := range r.actors {
		for a.pid >= len(r.procs) {
			p := &proc{kernel: r.kernel, pid: len(r.procs), ownsLocks: r.ownsLocks}
			r.procs = append(r.procs, p)
			table := New(p, time.Millisecond)
			table.sliceLength, table.firstRecheck = r.slice, time.Hour
			r.tables = append(r.tables, table)
		}
	}
	r.cancels = make([]context.CancelFunc, len(r.actors))
	r.states = make([]string, len(r.actors))
	for i, a := range r.actors {
		ctx := context.Background()
		r.cancels[i] = func() {}
		if !a.background {
			ctx, r.cancels[i] = context.WithCancel(ctx)
		}
		r.states[i] = acquiring
		go func() {
			for range max(1, a.holds) {
				r.act(ctx, i)
			}
			r.mu.Lock()
			r.states[i] = finished
			r.mu.Unlock()
		}()
	}
	r.addIncidents()
}

func (r *run) addIncidents() {
	add := func(do func(), format string, args ...any) {
		r.incidents = append(r.incidents, incident{name: fmt.Sprintf(format, args...), do: do})
	}
	for _, i := range r.cancel {
		add(r.cancels[i], "cancel actor %d", i)
	}
	if r.scenario.unlink {
		add(func() { r.kernel.unlink(path) }, "remove the file")
	}
	for _, pid := range r.recheck {
		add(func() { r.recheckIn(pid) }, "recheck in process %d", pid)
	}
	for _, pid := range r.kill {
		add(func() { r.killProcess(pid) }, "kill process %d", pid)
	}
}

func (r *run) recheckIn(pid int) {
	table := r.tables[pid]
	table.mu.Lock()
	defer table.mu.Unlock()
	for _, e := range table.entries {
		go e.recheckNow()
	}
}

func (r *run) killProcess(pid int) {
	reap := r.procs[pid].kill()
	r.holders = slices.DeleteFunc(r.holders, func(h holder) bool { return r.actors[h.actor].pid == pid })
	for i, a := range r.actors {
		if a.pid == pid {
			r.cancels[i]() // so that its goroutines end
		}
	}
	r.incidents = append(r.incidents, incident{fmt.Sprintf("process %d is gone", pid), reap, true})
}

// step lets one thing happen: a system call or an incident. If nothing can happen it lets time
// pass, for the idle timeout and for processes that poll. It returns false at the end of the
// run.
func (r *run) step() bool {
	synctest.Wait()
	r.mu.Lock()
	if len(r.trace) > 1000 {
		r.fault("the run does not end: actors are %v", r.states)
		r.mu.Unlock()
		return false
	}
	ready := r.readyCalls()
	end := !slices.ContainsFunc(r.states, func(s string) bool { return s != finished })
	if end && len(ready) == 0 {
		// The other incidents would have no effect any more.
		r.incidents = slices.DeleteFunc(r.incidents, func(i incident) bool { return !i.must })
	}
	of := len(ready) + len(r.incidents)
	switch {
	case len(ready) > 0 && r.spent >= preemptions():
		of = 1
	case len(ready) == 0 && end:
		of = min(1, of)
	}
	r.mu.Unlock()
	if of == 0 {
		return r.nap(end)
	}
	r.naps = 0
	took := r.choose(of)
	if took > 0 && len(ready) > 0 {
		r.spent++
	}
	if took < len(ready) {
		r.performCall(ready[took])
	} else {
		r.performIncident(took - len(ready))
	}
	return true
}

// readyCalls returns the calls that would not block. Those of the process whose call happened
// last come first: going on with it is no preemption.
func (r *run) readyCalls() []*call {
	var ready []*call
	for _, c := range r.calls {
		if c.ready() {
			ready = append(ready, c)
		}
	}
	slices.SortStableFunc(ready, func(a, b *call) int {
		switch {
		case a.proc == b.proc:
			return strings.Compare(a.name, b.name)
		case a.proc == r.last:
			return -1
		case b.proc == r.last:
			return 1
		}
		return a.proc.pid - b.proc.pid
	})
	return ready
}

// nap lets time pass. It returns false if the run is at its end, or if the actors do not get on.
func (r *run) nap(end bool) bool {
	if end && r.naps > 0 {
		return false
	}
	if r.naps++; r.naps > 10 {
		r.report("lost wake-up: actors are %v", r.states)
		return false
	}
	r.trace = append(r.trace, "- time passes")
	time.Sleep(time.Millisecond << r.naps)
	return true
}

// choose returns which of the things that can happen next does.
func (r *run) choose(of int) int {
	took := 0
	if n := len(r.choices); n < len(r.prefix) {
		took = min(r.prefix[n], of-1)
	}
	r.choices = append(r.choices, choice{took, of})
	return took
}

func (r *run) performCall(c *call) {
	r.mu.Lock()
	r.last = c.proc
	r.calls = slices.DeleteFunc(r.calls, func(o *call) bool { return o == c })
	r.trace = append(r.trace, fmt.Sprintf("process %d: %s", c.proc.pid, c.name))
	r.mu.Unlock()
	c.perform()
}

func (r *run) performIncident(n int) {
	i := r.incidents[n]
	r.incidents = slices.Delete(r.incidents, n, n+1)
	r.mu.Lock()
	r.trace = append(r.trace, i.name)
	r.mu.Unlock()
	i.do()
}

// checkLeftovers checks that nothing is left behind.
func (r *run) checkLeftovers() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.open) > 0 {
		r.fault("%d descriptors are open", len(r.open))
	}
	for _, ino := range r.inodes {
		if len(ino.locks) > 0 {
			r.fault("locks are left: %v", ino.locks)
		}
		if ino.pending != nil {
			r.fault("pending is still locked")
		}
	}
	for pid, table := range r.tables {
		if n := table.size(); n > 0 && !r.procs[pid].dead {
			r.fault("process %d still has %d entries", pid, n)
		}
	}
}

// stop ends the goroutines, which after a fault may still be waiting for something.
func (r *run) stop() {
	for _, cancel := range r.cancels {
		cancel()
	}
	for _, p := range r.procs {
		p.dead = true
	}
	for range 1000 {
		synctest.Wait()
		r.mu.Lock()
		calls := r.calls
		r.calls = nil
		r.mu.Unlock()
		for _, c := range calls {
			c.perform()
		}
	}
}

// act acquires and releases the lock once as actor i.
func (r *run) act(ctx context.Context, i int) {
	a, p := r.actors[i], r.procs[r.actors[i].pid]
	r.mu.Lock()
	start := r.now
	r.mu.Unlock()
	h, ok := r.acquire(ctx, i)
	if !ok {
		return
	}
	work := func() { _ = p.call("work", always, func() error { return nil }) }
	r.addHolder(i, h.entry.id, start)
	work()
	if a.downgrade {
		if err := h.Downgrade(); err != nil && !p.dead {
			r.report("actor %d: downgrade: %v", i, err)
		}
		r.noteDowngrade(i)
		work()
	}
	r.removeHolder(i)
	same, err := h.Release(path)
	if !p.dead && (err != nil || !same && !r.scenario.unlink) {
		r.report("actor %d: release: %v, %v", i, same, err)
	}
}

// acquire acquires the lock for actor i, and reports whether it did.
func (r *run) acquire(ctx context.Context, i int) (h Hold, ok bool) {
	var err error
	a, p := r.actors[i], r.procs[r.actors[i].pid]
	if a.try {
		h, ok, err = tryAcquire(r.tables[a.pid], request(path), a.mode)
		if !ok && err == nil && r.onlyReaders() {
			r.report("actor %d: a try by a reader failed, though no writer exists", i)
		}
	} else {
		h, err = r.tables[a.pid].Acquire(ctx, request(path), a.mode, false)
		ok = err == nil
	}
	if err != nil && ctx.Err() == nil && !p.dead {
		r.report("actor %d: %v", i, err)
	}
	return h, ok
}

func (r *run) onlyReaders() bool {
	return !slices.ContainsFunc(r.actors, func(a actor) bool { return a.mode == Exclusive })
}

// addHolder checks that actor i, which began to acquire the lock at the time start, may hold
// the lock on the file id.
func (r *run) addHolder(i int, id ID, start int) {
	a, p := r.actors[i], r.procs[r.actors[i].pid]
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.dead {
		return
	}
	for _, other := range r.holders {
		if other.id == id && (a.mode == Exclusive || other.mode == Exclusive) {
			r.fault("actor %d holds the lock together with actor %d", i, other.actor)
		}
	}
	// The path must have named the file at a moment after start at which the process had locked it.
	if ino := r.inodes[id]; ino.removedAt > 0 && ino.removedAt < max(start, ino.lockedAt[p]) {
		r.fault("actor %d has locked a removed file", i)
	}
	r.holders = append(r.holders, holder{i, id, a.mode})
	r.states[i] = holding
	r.trace = append(r.trace, fmt.Sprintf("actor %d holds the lock", i))
}

func (r *run) noteDowngrade(i int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for j := range r.holders {
		if r.holders[j].actor == i {
			r.holders[j].mode = Shared
		}
	}
}

func (r *run) removeHolder(i int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.holders = slices.DeleteFunc(r.holders, func(h holder) bool { return h.actor == i })
	r.states[i] = acquiring
}

// report is fault for a caller that does not hold mu.
func (r *run) report(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault(format, args...)
}
