package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/go-fasteners/fasteners"
)

// run lets the workers run until the time is over, there is a violation, or the user wants the end.
func (r *stressRun) run() {
	end := time.NewTimer(r.duration)
	defer end.Stop()
	second := time.NewTicker(time.Second)
	defer second.Stop()
	nextKill := r.start.Add(r.untilKill())
	kill := time.NewTimer(time.Until(nextKill))
	defer kill.Stop()
	for n := 1; ; {
		select {
		case <-r.ctx.Done():
			return
		case <-end.C:
			return
		case v := <-r.found:
			r.first = &v
			return
		case <-kill.C:
			if err := r.killOne(); err != nil {
				r.first = &violation{What: "a worker could not be started again: " + err.Error()}
				return
			}
			if time.Since(nextKill) > time.Second { // the machine was asleep, say
				nextKill = time.Now()
			}
			nextKill = nextKill.Add(r.untilKill())
			kill.Reset(time.Until(nextKill))
		case <-second.C:
			if v := r.watch(); v != nil {
				r.first = v
				return
			}
			if r.line.inPlace || n%10 == 0 {
				r.line.print(r.progress())
			}
			n++
		}
	}
}

// untilKill returns the time from one kill to the next.
func (r *stressRun) untilKill() time.Duration {
	if r.killRate == 0 {
		return 1 << 62
	}
	return time.Duration((0.5 + r.chance.Float64()) / r.killRate * float64(time.Second))
}

// killOne kills a process, and starts the next one in its place.
func (r *stressRun) killOne() error {
	if r.hang.slot != nil {
		return nil // one that may hang must not be killed, nor the holder that it waits for
	}
	i := r.chance.IntN(len(r.workers))
	if v := r.endedByItself(); v != nil {
		return nil // watch tells
	}
	r.kill(i)
	r.kills++
	return r.startOne(i)
}

func (r *stressRun) endedByItself() *violation {
	for _, w := range r.workers {
		select {
		case <-w.exited:
			return &violation{What: w.failure().Error()}
		default:
		}
	}
	return nil
}

func (r *stressRun) progress() string {
	elapsed := time.Since(r.start)
	var acquired, violations uint64
	for i := range r.board.slots {
		s := &r.board.slots[i]
		violations += s.violations.Load()
		for op := range operations {
			acquired += s.acquired[op].Load()
		}
	}
	return fmt.Sprintf("%v: %d acquisitions, %.0f/s, %d kills, %d violations",
		elapsed.Round(time.Second), acquired, float64(acquired)/elapsed.Seconds(), r.kills, violations)
}

// A suspicion is that a goroutine waits though the lock is free.
type suspicion struct {
	slot    *slot
	waiting int64 // of the slot: another value means that it goes on
	worker  int
	number  int // of the goroutine
	since   time.Time
}

// watch looks for goroutines that have waited for a long time. That alone need not be wrong: others may
// have been faster. So when there is one, no goroutine may begin to acquire the lock any more, and the
// one that waits must get it as soon as the holders have released it.
func (r *stressRun) watch() *violation {
	if v := r.endedByItself(); v != nil {
		return v
	}
	if h := &r.hang; h.slot != nil {
		switch {
		case h.slot.waiting.Load() != h.waiting:
			*h = suspicion{}
			r.board.header.phase.Store(running)
		case time.Since(h.since) >= r.hangAfter:
			return r.hung(h.worker, h.number)
		}
		return nil
	}
	for i := range r.board.slots {
		s := &r.board.slots[i]
		waiting := s.waiting.Load()
		if waiting != 0 && time.Since(time.Unix(0, waiting)) >= r.hangAfter {
			r.board.header.phase.Store(paused)
			r.hang = suspicion{s, waiting, i / r.board.seats, i % r.board.seats, time.Now()}
			return nil
		}
	}
	return nil
}

// hung returns the violation of a goroutine that does not go on, with a dump of its process.
func (r *stressRun) hung(worker, goroutine int) *violation {
	w := r.workers[worker]
	v := &violation{What: fmt.Sprintf("goroutine %d of process %d does not get the lock, though nobody else wants it (%s)",
		goroutine, w.pid(), r.holders())}
	if w.send("dump") != nil {
		return v
	}
	select {
	case v.Dump = <-r.dumps:
	case <-w.exited:
	case <-time.After(10 * time.Second):
		v.Dump = "the process does not answer"
	}
	return v
}

// holders tells who holds the lock, as far as the library knows that.
func (r *stressRun) holders() string {
	all, err := fasteners.NewInterProcessLock(r.lock).Holders()
	if err != nil {
		return err.Error()
	}
	var holders []string
	for _, h := range all {
		if !h.Waiting {
			holders = append(holders, h.String())
		}
	}
	if len(holders) == 0 {
		return "the lock is free"
	}
	return "held by " + strings.Join(holders, ", ")
}

// stop ends the run. All waits have to end now.
func (r *stressRun) stop() {
	r.line.clear()
	r.elapsed = time.Since(r.start)
	r.board.header.phase.Store(stopped)
	judge := r.first == nil && r.ctx.Err() == nil
	grace := r.hangAfter
	if !judge {
		grace = min(grace, 2*time.Second)
	}
	limit := time.After(grace)
	for i, w := range r.workers {
		select {
		case <-w.exited:
		case <-limit:
			if judge && r.first == nil {
				r.first = r.stillRunning(i)
			}
			r.kill(i)
			limit = time.After(0)
		}
		if judge && r.first == nil && w.err != nil {
			r.first = &violation{What: w.failure().Error()}
		}
	}
	r.choose()
}

// choose takes of the violations that are known the one that tells most.
func (r *stressRun) choose() {
	for {
		select {
		case v := <-r.found:
			if r.first == nil || len(v.Holds) > len(r.first.Holds) && r.first.Dump == "" {
				r.first = &v
			}
		default:
			return
		}
	}
}

func (r *stressRun) stillRunning(worker int) *violation {
	goroutine := 0
	for i := range r.board.of(worker) {
		if r.board.of(worker)[i].waiting.Load() != 0 {
			goroutine = i
			break
		}
	}
	return r.hung(worker, goroutine)
}
