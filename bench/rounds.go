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
	slice  time.Duration // how long to measure a contender in a round

	handoffs int
	hold     time.Duration // of the lock, before each

	waits int           // rounds of the measures in which goroutines wait
	wait  time.Duration // how long they wait while their CPU time is measured

	many   [2]int        // goroutines that wait at the same time
	settle time.Duration // from their start to the measurement, which takes as long again
	serve  time.Duration // within which all should acquire the lock
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
	dir        string // for the lock files
	contenders []*contender
	versions   map[string]string // of Python libraries
	absent     []string          // contenders that cannot run, and why
	load       string            // load average before the run
	commit     string            // of this library
}

// newBench leaves out contenders that are not installed.
func newBench(p plan, dir string) *bench {
	b := &bench{plan: p, dir: dir, versions: map[string]string{}, commit: measuredCommit()}
	_, _ = fmt.Sscan(lineAfter("/proc/loadavg", ""), &b.load)
	for _, c := range contenders {
		if c.kind == pythonLibrary {
			e := b.startEntrant(c, 1)
			e.stop()
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

// An entrant is a contender in one measure, with a lock file of its own.
type entrant struct {
	*contender
	path      string
	processes []*process
	rounds    [][]reply // the replies of each round
	err       error     // why it takes no further part
}

// startEntrant starts processes of a contender. The caller must call stop, even if e.err is
// not nil.
func (b *bench) startEntrant(c *contender, processes int) *entrant {
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

func (e *entrant) stop() {
	for _, p := range e.processes {
		p.close()
	}
}

// A turn measures one contender for one round, and returns the replies of its processes.
type turn func(*entrant) ([]reply, error)

// interleave calls t for each entrant in each round. Each round begins with another entrant,
// so that other load of the machine affects all alike.
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

// requests returns a turn in which the first process does what the requests say.
func requests(rs ...request) turn {
	return func(e *entrant) (round []reply, err error) {
		for _, r := range rs {
			round = append(round, e.processes[0].call(r))
		}
		return round, e.failure()
	}
}

// callAll sends a request to all processes, which begin at the same time.
func (e *entrant) callAll(r request) (round []reply, err error) {
	r.Start = now() + (20 * time.Millisecond).Nanoseconds()
	for _, p := range e.processes {
		p.send(r)
	}
	for _, p := range e.processes {
		round = append(round, p.receive(seconds(r.Seconds)+replyTimeout))
	}
	return round, e.failure()
}

// failure returns the first error of a process.
func (e *entrant) failure() error {
	for _, p := range e.processes {
		if p.err != nil {
			return p.err
		}
	}
	return nil
}

// A value is a number that summarizes the rounds of an entrant, or NaN if it failed.
type value func(*entrant) float64

// perRound returns f of each round, or nil if one failed.
func perRound(e *entrant, f func([]reply) float64) []float64 {
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
	return func(e *entrant) float64 { return quantile(perRound(e, f), q) }
}

func median(f func([]reply) float64) value { return atQuantile(0.5, f) }
func worst(f func([]reply) float64) value  { return atQuantile(1, f) }

// quantile interpolates between the two nearest values.
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
