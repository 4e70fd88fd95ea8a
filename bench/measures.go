//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
)

// measures are in the order of the report.
var measures = []struct {
	name string
	take func(*bench) *result
}{
	{"uncontended", uncontended},
	{"goroutines", ownHandles},
	{"shared", sharedHandle},
	{"processes", processes},
	{"handoff", handoff},
	{"cpu", cpuOfWaiting},
	{"waiters12k", waiters12k},
	{"waiters100k", waiters100k},
	{"allocs", allocations},
}

// Which contenders take part in a measure.
func isFileLock(c *contender) bool     { return c.kind != noLock && c.kind != goroutinesOnly }
func isFastFileLock(c *contender) bool { return isFileLock(c) && !c.handoffOnly }
func isGoLock(c *contender) bool       { return isFastFileLock(c) && c.kind != pythonLibrary }
func isGoLibrary(c *contender) bool    { return isFastFileLock(c) && c.kind == goLibrary }

// uncontended measures acquire and release without contention.
func uncontended(b *bench) *result {
	r := b.newResult(isFastFileLock, 1)
	defer r.stop()
	s := b.slice.Seconds()
	interleave(r.entrants, b.rounds,
		requests(request{Do: "pairs", Seconds: s}, request{Do: "pairs", Seconds: s, Fresh: true}))

	r.title = "Acquire and release without contention"
	for i, how := range handles {
		time := median(ofReply(i, perPair))
		r.column(how, time, duration)
		r.ratioColumn(time, r.bestGofrs(time, math.Min))
		r.column("CPU time", median(ofReply(i, cpuPerPair)), duration)
	}
	return r
}

// ownHandles measures eight goroutines that compete, each through a handle of its own.
func ownHandles(b *bench) *result {
	eligible := func(c *contender) bool { return isGoLock(c) || c.kind == goroutinesOnly }
	r := b.goroutines(eligible, false)
	r.title = "8 goroutines of one process, a handle each"
	r.rateColumns(r.bestGofrs(median(rate), math.Max))
	return r
}

// sharedHandle measures eight goroutines that compete through one handle.
func sharedHandle(b *bench) *result {
	eligible := func(c *contender) bool { return isGoLibrary(c) || c.kind == goroutinesOnly }
	r := b.goroutines(eligible, true)
	r.title = "8 goroutines of one process, one handle for all"
	r.text = "A contender that loses updates does not exclude goroutines that share a handle. " +
		"Its speed means nothing."
	r.rateColumns(r.named(lockedfileName))
	return r
}

func (b *bench) goroutines(eligible func(*contender) bool, shared bool) *result {
	r := b.newResult(eligible, 1)
	defer r.stop()
	compete := request{Do: "goroutines", N: 8, Shared: shared, Seconds: b.slice.Seconds()}
	interleave(r.entrants, b.rounds, requests(compete))
	return r
}

func (r *result) rateColumns(to *entrant) {
	r.column("pairs per second", median(rate), perSecond)
	r.ratioColumn(median(rate), to)
	r.column("CPU time per pair", median(cpuPerPair), duration)
	r.column("updates lost", worst(lost), percent)
}

// processes measures four processes that compete.
func processes(b *bench) *result {
	r := b.newResult(isFastFileLock, 4)
	defer r.stop()
	interleave(r.entrants, b.rounds, func(e *entrant) ([]reply, error) {
		counter := e.path + ".count"
		if err := os.WriteFile(counter, make([]byte, 8), 0o666); err != nil {
			return nil, err
		}
		round, err := e.callAll(request{Do: "count", Seconds: 2 * b.slice.Seconds()})
		if err != nil {
			return nil, err
		}
		n, err := os.ReadFile(counter)
		if err != nil {
			return nil, err
		}
		round[0].Lost = int64(pairs(round)) - int64(binary.NativeEndian.Uint64(n))
		return round, nil
	})

	r.title = "4 processes add to one counter"
	r.text = "The share is that of the process that acquired the lock least often, " +
		"relative to a quarter. The share and the longest wait are medians over the rounds."
	r.rateColumns(r.named(gofrsPollName))
	r.column("share of the slowest", median(leastShare), percent)
	r.column("longest wait", median(longestWait), duration)
	r.ratioColumn(median(longestWait), r.named(gofrsLockName))
	return r
}

// handoff measures the time from just before a process releases the lock until another one, which
// has been waiting, has acquired it.
func handoff(b *bench) *result {
	r := b.newResult(isFileLock, 2)
	defer r.stop()
	handOff := func(e *entrant) ([]reply, error) {
		holder, waiter := e.processes[0], e.processes[1]
		holder.call(request{Do: "acquire"})
		waiter.send(request{Do: "acquire"})
		// A waiter that polls does so at fixed times. If all holds took the same time, they would
		// all end at the same distance from its next try.
		hold := b.hold.Seconds() * (1 + rand.Float64()/4)
		released := holder.call(request{Do: "release", Settle: hold}).At
		acquired := waiter.receive(replyTimeout).At
		waiter.call(request{Do: "release"})
		if err := e.failure(); err != nil {
			return nil, err
		}
		if acquired < released {
			return nil, errors.New("acquired while another process held the lock")
		}
		return []reply{{Nanos: acquired - released}}, nil
	}
	// Hand-offs take long with contenders that poll rarely, so there are fewer of them.
	var often, seldom []*entrant
	for _, e := range r.entrants {
		if e.handoffOnly || e.kind == pythonLibrary {
			seldom = append(seldom, e)
		} else {
			often = append(often, e)
		}
	}
	for range max(1, b.handoffs/5) {
		interleave(often, 5, handOff)
		interleave(seldom, 1, handOff)
	}

	r.title = fmt.Sprintf("Hand-off between two processes after a hold of %s", plainDuration(b.hold))
	r.text = "From just before the call that releases the lock until the other process has acquired it."
	call := r.named(blockingCallName)
	r.column("median", median(nanos), duration)
	r.ratioColumn(median(nanos), call)
	p99 := atQuantile(0.99, nanos)
	r.column("p90", atQuantile(0.9, nanos), duration)
	r.column("p99", p99, duration)
	r.ratioColumn(p99, call)
	count := func(e *entrant) float64 { return float64(len(perRound(e, nanos))) }
	r.column("hand-offs", count, number)
	return r
}

// cpuOfWaiting measures the CPU time of a process that waits for a lock that is not released.
func cpuOfWaiting(b *bench) *result {
	r := b.newResult(func(c *contender) bool {
		return c.cancelable && !c.handoffOnly && c.kind != goroutinesOnly
	}, 0)
	interleave(r.entrants, b.waits, func(e *entrant) ([]reply, error) {
		// All counts at the same time, because that takes long and uses little CPU time.
		rounds, errs := make([][]reply, len(waiterCounts)), make([]error, len(waiterCounts))
		var all sync.WaitGroup
		for i, n := range waiterCounts {
			all.Go(func() {
				r := request{N: n, Seconds: b.wait.Seconds()}
				rounds[i], errs[i] = b.measureWait(e.contender, r, false)
			})
		}
		all.Wait()
		return slices.Concat(rounds...), errors.Join(errs...)
	})

	r.title = fmt.Sprintf("CPU time of a process that waits for %s", plainDuration(b.wait))
	r.text = "User and system time, the start of the goroutines (or threads) included. " +
		"Each waits with a deadline, through a handle of its own."
	for i, n := range waiterCounts {
		r.column(plural(n, "goroutine"), median(ofReply(i, cpuTime)), duration)
	}
	return r
}

var waiterCounts = []int{1, 100}

// measureWait measures goroutines of a new process that wait, as r says, for a lock that
// another process holds. If serve is set, the holder then releases the lock, and a second
// reply says how long it took until all goroutines had acquired it.
func (b *bench) measureWait(c *contender, r request, serve bool) ([]reply, error) {
	e := b.startEntrant(c, 2)
	defer e.stop()
	if e.err != nil {
		return nil, e.err
	}
	holder, waiter := e.processes[0], e.processes[1]
	if c.kind != noLock {
		holder.call(request{Do: "acquire"})
	}
	r.Do = "wait"
	round := []reply{waiter.call(r)}
	if serve && c.kind != noLock {
		released := holder.call(request{Do: "release"}).At
		all := waiter.call(request{Do: "serve", Seconds: b.serve.Seconds()})
		if all.Served == int64(r.N) {
			all.Nanos = all.At - released
		}
		round = append(round, all)
	}
	return round, e.failure()
}

// manyWaiters measures n goroutines of one process that wait, and then acquire the lock one after
// another.
func manyWaiters(b *bench, n int, eligible func(*contender) bool) *result {
	r := b.newResult(eligible, 0)
	wait := request{N: n, Settle: b.settle.Seconds(), Seconds: b.settle.Seconds()}
	interleave(r.entrants, b.waits, func(e *entrant) ([]reply, error) {
		return b.measureWait(e.contender, wait, true)
	})
	r.title = plural(n, "goroutine") + " of one process wait, a handle each"
	r.text = "Threads, CPU and resident memory of the process while the goroutines wait; " +
		"added is the memory that it did not use before. " +
		"Then the holder releases the lock, and each goroutine acquires and releases it."
	r.column("threads", median(ofReply(0, threads)), number)
	r.column("CPU", median(ofReply(0, load)), percent)
	r.column("memory", median(ofReply(0, memory)), megabytes)
	r.column("added", median(ofReply(0, added)), megabytes)
	r.column("acquired the lock", median(served), number)
	r.column("within", median(servedIn), duration)
	return r
}

// waiters12k has more waiters than the 10,000 threads that the Go runtime allows.
func waiters12k(b *bench) *result {
	return manyWaiters(b, b.many[0], func(c *contender) bool {
		return isGoLock(c) || c.kind == noLock
	})
}

// waiters100k is for contenders whose waiters neither need a thread each nor poll.
func waiters100k(b *bench) *result {
	return manyWaiters(b, b.many[1], func(c *contender) bool {
		return c.name == oursName || c.name == jujuName || c.kind == noLock
	})
}

// allocations measures allocations per acquire and release.
func allocations(b *bench) *result {
	r := b.newResult(isGoLock, 1)
	defer r.stop()
	interleave(r.entrants, b.waits,
		requests(request{Do: "allocs", N: 5000}, request{Do: "allocs", N: 5000, Fresh: true}))
	r.title = "Allocations per acquire and release"
	for i, how := range handles {
		r.column(how, median(ofReply(i, allocs)), fourDecimals)
	}
	return r
}

var handles = []string{"one handle", "new handle each time"}

// The following functions summarize the replies of a round.

// ofReply returns a function that applies f to the reply with that index.
func ofReply(i int, f func([]reply) float64) func([]reply) float64 {
	return func(round []reply) float64 { return f(round[i : i+1]) }
}

func pairs(round []reply) (n float64) {
	for _, r := range round {
		n += float64(r.Pairs)
	}
	return n
}

func cpuTime(round []reply) (ns float64) {
	for _, r := range round {
		ns += float64(r.CPU)
	}
	return ns
}

func rate(round []reply) (perSecond float64) {
	for _, r := range round {
		perSecond += float64(r.Pairs) / float64(r.Nanos) * 1e9
	}
	return perSecond
}

func leastShare(round []reply) float64 {
	least := math.Inf(1)
	for _, r := range round {
		least = min(least, float64(r.Pairs))
	}
	return least / (pairs(round) / float64(len(round)))
}

func longestWait(round []reply) (ns float64) {
	for _, r := range round {
		ns = max(ns, float64(r.Longest))
	}
	return ns
}

func lost(round []reply) float64       { return float64(round[0].Lost) / pairs(round) }
func cpuPerPair(round []reply) float64 { return cpuTime(round) / pairs(round) }
func perPair(round []reply) float64    { return nanos(round) / pairs(round) }
func nanos(round []reply) float64      { return float64(round[0].Nanos) }
func allocs(round []reply) float64     { return round[0].Allocs }
func threads(round []reply) float64    { return float64(round[0].Threads) }
func memory(round []reply) float64     { return float64(round[0].Memory) }
func added(round []reply) float64      { return float64(round[0].Memory - round[0].Idle) }
func load(round []reply) float64       { return cpuTime(round) / nanos(round) }

// served and servedIn are about the second reply of measureWait, if there is one.

func served(round []reply) float64 {
	if len(round) < 2 {
		return math.NaN()
	}
	return float64(round[1].Served)
}

func servedIn(round []reply) float64 {
	switch {
	case len(round) < 2:
		return math.NaN()
	case round[1].Nanos == 0:
		return math.Inf(1)
	}
	return float64(round[1].Nanos)
}
