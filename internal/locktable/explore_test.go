package locktable

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-fasteners/fasteners/internal/stress"
)

// TestExplore is a model check of the real code on the simulated kernel (see kernel_test.go).
// The system calls of a scenario happen one at a time, in every order that differs by a few
// preemptions from running one process after another. Time passes only when no call can happen.
// A recheck happens only where the scenario wants one, so that it does not hide a lost wake-up.
func TestExplore(t *testing.T) {
	for _, s := range scenarios() {
		for _, s.ownsLocks = range []bool{false, true} {
			for _, s.slice = range []time.Duration{0, time.Millisecond} {
				t.Run(fmt.Sprintf("%s/ownsLocks=%v,slice=%v", s.name, s.ownsLocks, s.slice), func(t *testing.T) {
					explore(t, s)
				})
			}
		}
	}
}

// A scenario is what processes do with one file.
type scenario struct {
	name      string
	actors    []actor
	ownsLocks bool          // see proc
	slice     time.Duration // the time slice of each process; with 0, none hands the lock on

	// Each of these incidents happens once, at any time, or never.
	kill    []int // processes that are killed
	cancel  []int // actors whose contexts are canceled
	recheck []int // processes that recheck
	unlink  bool  // whether the file is removed
}

// An actor is a goroutine that acquires and releases the lock.
type actor struct {
	pid        int // its process
	mode       Mode
	background bool // its context cannot be canceled
	try        bool // it does not wait for a release
	holds      int  // how many times it acquires the lock; 0 is once
	downgrade  bool // it downgrades the lock before it releases it
}

func scenarios() []scenario {
	w, r := actor{mode: Exclusive}, actor{mode: Shared}
	in := func(pid int, a actor) actor { a.pid = pid; return a }
	background := func(a actor) actor { a.background = true; return a }
	try := func(a actor) actor { a.try = true; return a }
	down := func(a actor) actor { a.downgrade = true; return a }
	times := func(n int, a actor) actor { a.holds = n; return a }

	return []scenario{
		{name: "two writers, one process", actors: []actor{w, w}},
		{name: "two writers, two processes", actors: []actor{w, in(1, w)}},
		{name: "three writers, two processes", actors: []actor{w, w, in(1, w)}},
		{name: "writers that cannot be canceled", actors: []actor{background(w), in(1, background(w)), in(1, w)}},
		{name: "readers and a writer, one process", actors: []actor{r, r, w}},
		{name: "readers and a writer, two processes", actors: []actor{r, r, in(1, w)}},
		{name: "readers, two processes", actors: []actor{r, in(1, r), in(1, r)}},
		{name: "tries", actors: []actor{try(w), try(r), in(1, w)}},
		{name: "tries by readers", actors: []actor{try(r), try(r), in(1, try(r))}},
		{name: "two holds each", actors: []actor{times(2, w), in(1, times(2, w))}},
		{name: "two holds of one writer, three processes", actors: []actor{times(2, w), in(1, w), in(2, r)}},
		{name: "canceled in the queue", actors: []actor{w, w, r}, cancel: []int{1}},
		{name: "canceled writer ahead of a reader", actors: []actor{r, w, r}, cancel: []int{1}},
		{name: "canceled leader", actors: []actor{in(1, w), w, w}, cancel: []int{1}},
		{name: "canceled leader and next in the queue", actors: []actor{in(1, w), w, r}, cancel: []int{1, 2}},
		{name: "pending", actors: []actor{r, in(1, r), in(2, w)}},
		{name: "pending of a writer that cannot be canceled", actors: []actor{r, in(1, r), in(2, background(w))}},
		{name: "pending and a queue", actors: []actor{r, r, w, in(1, w)}},
		{name: "pending of a canceled writer", actors: []actor{r, r, in(1, w), in(1, r)}, cancel: []int{2}},
		{name: "pending of a killed writer", actors: []actor{r, in(1, r), in(2, w)}, kill: []int{2}},
		{name: "downgrade", actors: []actor{down(w), r, in(1, w), in(1, r)}},
		{name: "downgrade with a queue", actors: []actor{down(w), r, w, in(1, r)}},
		{name: "downgrade and tries", actors: []actor{down(w), try(r), try(w)}},
		{name: "queues in two processes", actors: []actor{w, w, in(1, w), in(1, r)}},
		{name: "killed holder", actors: []actor{w, in(1, w)}, kill: []int{0}},
		{name: "killed process with a queue", actors: []actor{w, r, in(1, w)}, kill: []int{0}},
		{name: "killed holder, waiter that cannot be canceled", actors: []actor{w, in(1, background(w))}, kill: []int{0}},
		{name: "removed file", actors: []actor{w, w}, unlink: true},
		{name: "removed file, two processes", actors: []actor{w, in(1, w)}, unlink: true},
		{name: "removed file, two holds of one writer", actors: []actor{times(2, w), in(1, w)}, unlink: true},
		{name: "removed file, readers", actors: []actor{r, r, in(1, w)}, unlink: true},
		{name: "removed file, tries", actors: []actor{try(w), in(1, try(w))}, unlink: true},
		{name: "canceled writers of two processes", actors: []actor{in(2, w), w, in(1, w)}, cancel: []int{1, 2}},
		{name: "recheck and a removed file", actors: []actor{in(1, w), w, w}, unlink: true, recheck: []int{0}},
		{name: "recheck and a canceled leader", actors: []actor{in(1, w), w, r}, cancel: []int{1}, recheck: []int{0}},
		{name: "recheck by a writer that waits for readers", actors: []actor{in(1, r), in(2, r), w}, cancel: []int{2}, recheck: []int{0}},
		{name: "recheck by readers and by a canceled writer", actors: []actor{r, r, in(1, w)}, cancel: []int{2}, recheck: []int{0, 1}},
		{name: "recheck by readers around a canceled writer", actors: []actor{r, w, r}, cancel: []int{1}, recheck: []int{0}},
		{name: "recheck and canceled waiter in the queue", actors: []actor{in(1, w), w, w}, cancel: []int{2}, recheck: []int{0}},
	}
}

// maxPreemptions is how many times a run may leave a process that could go on. Few bugs need
// more than two preemptions (Musuvathi and Qadeer, Iterative Context Bounding, PLDI 2007).
// Exploring those takes half a minute, so the default is one, and on a machine that is busy as
// many orders as there is time for; CI sets FASTENERS_TEST_STRICT to explore them all.
var maxPreemptions = 2

// isStrict is a variable, since every step of a run asks for it.
var isStrict = os.Getenv("FASTENERS_TEST_STRICT") != ""

func preemptions() int {
	if !isStrict {
		return 1
	}
	return maxPreemptions
}

// explore runs the scenario in all orders, depth first. An order is a list of choices, one for
// each step of the run. Each run follows a prefix of choices, and after that always takes the
// first.
func explore(t *testing.T, s scenario) {
	runs, began := 1, time.Now()
	for prefix := []int(nil); ; runs++ {
		r := &run{scenario: s, prefix: prefix}
		synctest.Test(t, func(*testing.T) { r.run() })
		if len(r.faults) > 0 {
			t.Fatalf("run %d:\n%s\n\n%s", runs, strings.Join(r.faults, "\n"), strings.Join(r.trace, "\n"))
		}
		if prefix = r.nextPrefix(); prefix == nil {
			break
		}
		if !isStrict && time.Since(began) > stress.Time {
			t.Log("there are more orders than there was time for")
			break
		}
	}
	t.Logf("%d runs", runs)
}

// nextPrefix returns the prefix of the next run, which differs from this one in the last step
// that has another choice left. It returns nil if there is no such step.
func (r *run) nextPrefix() []int {
	last := len(r.choices) - 1
	for last >= 0 && r.choices[last].took+1 >= r.choices[last].of {
		last--
	}
	if last < 0 {
		return nil
	}
	var prefix []int
	for _, c := range r.choices[:last] {
		prefix = append(prefix, c.took)
	}
	return append(prefix, r.choices[last].took+1)
}
