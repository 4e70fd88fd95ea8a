//go:build linux

package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// A plan says how long and how often to measure.
type plan struct {
	rounds int
	slice  time.Duration // the turn of a contender in a round

	handoffs int
	hold     time.Duration // before each

	waits int           // rounds in which others wait
	wait  time.Duration // during which their CPU time is taken

	many   [2]int        // goroutines that wait at once
	settle time.Duration // until they are looked at, and then for as long
	serve  time.Duration // for which all may take to have the lock
}

var full = plan{
	rounds: 9, slice: 300 * time.Millisecond,
	handoffs: 120, hold: 200 * time.Millisecond,
	waits: 3, wait: 5 * time.Second,
	many: [2]int{12_000, 100_000}, settle: 2 * time.Second, serve: 30 * time.Second,
}

var quick = plan{
	rounds: 5, slice: 100 * time.Millisecond,
	handoffs: 40, hold: 20 * time.Millisecond,
	waits: 1, wait: 5 * time.Second,
	many: [2]int{12_000, 100_000}, settle: time.Second, serve: 2 * time.Second,
}

// A bench is one run.
type bench struct {
	plan
	dir        string // of the lock files
	contenders []*contender
	versions   map[string]string // of libraries for Python
	absent     []string          // contenders, and why
	load       string            // average of the machine before the run
}

// newBench leaves out who is not installed.
func newBench(p plan, dir string) *bench {
	b := &bench{plan: p, dir: dir, versions: map[string]string{}}
	_, _ = fmt.Sscan(rest("/proc/loadavg", ""), &b.load)
	for _, c := range contenders {
		if c.kind == pythonLibrary {
			e := b.enter(c, 1)
			e.leave()
			if e.err != nil {
				b.absent = append(b.absent, fmt.Sprintf("%s (%v)", c.name, e.err))
				continue
			}
			b.versions[c.module] = e.processes[0].version
		}
		b.contenders = append(b.contenders, c)
	}
	return b
}

// An entrant is a contender in one measure, with a lock file that nobody else uses.
type entrant struct {
	*contender
	path      string
	processes []*process
	rounds    [][]reply // what came of each
	err       error     // takes no part any more
}

// enter starts processes of a contender. Who calls it has to call leave, whatever has
// become of them.
func (b *bench) enter(c *contender, processes int) *entrant {
	dir, err := os.MkdirTemp(b.dir, "")
	e := &entrant{contender: c, path: filepath.Join(dir, "lock"), err: err}
	for range processes {
		if e.err != nil {
			break
		}
		var p *process
		if p, e.err = start(c, e.path); e.err == nil {
			e.processes = append(e.processes, p)
			e.err = p.err
		}
	}
	return e
}

func (e *entrant) leave() {
	for _, p := range e.processes {
		p.close()
	}
}

// A turn returns the replies of one contender in one round.
type turn func(*entrant) ([]reply, error)

// interleave lets each have its turn in each round. A round begins with another one than
// the round before: what else the machine does is to meet all alike.
func interleave(es []*entrant, rounds int, t turn) {
	for i := range rounds {
		for j := range es {
			e := es[(i+j)%len(es)]
			if e.err != nil {
				continue
			}
			var r []reply
			if r, e.err = t(e); e.err == nil {
				e.rounds = append(e.rounds, r)
			}
		}
	}
}

// requests is a turn that makes these of the first process.
func requests(rs ...request) turn {
	return func(e *entrant) (round []reply, err error) {
		for _, r := range rs {
			round = append(round, e.processes[0].call(r))
		}
		return round, e.failure()
	}
}

// together makes a request of all processes, which they are to begin with at one time.
func (e *entrant) together(r request) (round []reply, err error) {
	r.Start = now() + (20 * time.Millisecond).Nanoseconds()
	for _, p := range e.processes {
		p.send(r)
	}
	for _, p := range e.processes {
		round = append(round, p.receive(seconds(r.Seconds)+patience))
	}
	return round, e.failure()
}

// failure returns why a process gives no more replies.
func (e *entrant) failure() error {
	for _, p := range e.processes {
		if p.err != nil {
			return p.err
		}
	}
	return nil
}

// A value is what the rounds of an entrant amount to, or NaN if it failed.
type value func(*entrant) float64

// each returns f of each round, if there was none that failed.
func each(e *entrant, f func([]reply) float64) []float64 {
	if e.err != nil {
		return nil
	}
	var v []float64
	for _, r := range e.rounds {
		v = append(v, f(r))
	}
	return v
}

func atQuantile(q float64, f func([]reply) float64) value {
	return func(e *entrant) float64 { return quantile(each(e, f), q) }
}

func median(f func([]reply) float64) value { return atQuantile(0.5, f) }
func worst(f func([]reply) float64) value  { return atQuantile(1, f) }

// quantile interpolates between the two values that are nearest.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	v = slices.Sorted(slices.Values(v))
	at := q * float64(len(v)-1)
	lo, hi := v[int(at)], v[int(math.Ceil(at))]
	if lo == hi {
		return lo // also where it is infinite
	}
	return lo + (at-math.Floor(at))*(hi-lo)
}
