package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/go-fasteners/fasteners"
)

// What a goroutine of a worker does, one after the other, as chance wants it.
const (
	doExclusive = iota
	doWrite
	doRead
	doTry       // any mode
	doDeadline  // any mode, with a short time to wait
	doCancel    // any mode, with a context that another goroutine cancels
	doDowngrade // write, then read
	doRemove    // exclusive; the holder removes the lock file before it releases the lock
	operations  // the number of them
)

var operationNames = [operations]string{
	"exclusive", "write", "read", "try", "deadline", "cancel", "downgrade", "remove",
}

// weights tells how often each operation is chosen.
var weights = [operations]int{20, 15, 25, 15, 8, 8, 6, 3}

// A stressOrder tells a worker what to do. It is the first message to it.
type stressOrder struct {
	Lock     string `json:"lock"`
	Board    string `json:"board"`
	Workers  int    `json:"workers"` // of the board
	Seats    int    `json:"seats"`   // of the board
	Number   int    `json:"number"`
	Seed     uint64 `json:"seed"`
	Process  uint64 `json:"process"`  // the incarnation of the worker
	Removals bool   `json:"removals"` // of the lock file

	Layout *boardLayout `json:"layout,omitempty"` // for a worker that is no Go program
}

// A stressMessage is what a worker tells: a violation, or a dump of its goroutines, which is what every
// later message to it asks for.
type stressMessage struct {
	Violation *violation `json:",omitempty"`
	Dump      string     `json:",omitempty"`
}

// A violation is something that a lock must not do.
type violation struct {
	What  string     `json:"what"`
	Holds []interval `json:"holds,omitempty"` // that overlap, or the one that was found to be wrong
	Dump  string     `json:"dump,omitempty"`  // of the goroutines of a process that does not go on
}

// A stressWorker is what the goroutines of a worker share.
type stressWorker struct {
	order  stressOrder
	board  *board
	shared workerLock
	mu     sync.Mutex // protects out
	out    *json.Encoder
}

func runStressWorker() error {
	ignoreTerminal()
	in := bufio.NewScanner(os.Stdin)
	if !in.Scan() {
		return in.Err()
	}
	w := &stressWorker{out: json.NewEncoder(os.Stdout)}
	if err := json.Unmarshal(in.Bytes(), &w.order); err != nil {
		return err
	}
	o, err := w.order, error(nil)
	if w.board, err = openBoard(o.Board, o.Workers, o.Seats); err != nil {
		return err
	}
	if w.shared, err = newWorkerLock(o.Lock, o.Number, true); err != nil {
		return err
	}
	go func() {
		for in.Scan() {
			w.tell(stressMessage{Dump: allStacks()})
		}
		os.Exit(0) // the process that has started this one is gone
	}()
	var group sync.WaitGroup
	for i := range o.Seats {
		group.Go(w.newGoroutine(i).run)
	}
	group.Wait()
	return nil
}

func (w *stressWorker) tell(m stressMessage) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.out.Encode(m)
}

func allStacks() string {
	stacks := make([]byte, maxTail)
	return string(stacks[:runtime.Stack(stacks, true)])
}

// A stressGoroutine acquires and releases the lock until the run ends.
type stressGoroutine struct {
	*stressWorker
	number int
	lock   workerLock // its own, or the one that is shared
	seat   *seat
	slot   *slot
	rng    *rand.Rand
}

func (w *stressWorker) newGoroutine(number int) *stressGoroutine {
	g := &stressGoroutine{stressWorker: w, number: number, lock: w.shared, seat: w.board.sit(w.order.Number, number)}
	g.slot = g.seat.slot()
	g.rng = rand.New(rand.NewPCG(w.order.Seed, uint64(w.order.Number)<<48|w.order.Process<<16|uint64(number)))
	if number%2 == 1 {
		if own, err := newWorkerLock(w.order.Lock, w.order.Number, false); err == nil {
			g.lock = own
		}
	}
	return g
}

func (g *stressGoroutine) run() {
	for {
		switch g.board.header.phase.Load() {
		case stopped:
			return
		case paused:
			time.Sleep(10 * time.Millisecond)
			continue
		}
		g.perform(g.choose())
		if g.rng.IntN(4) == 0 {
			time.Sleep(rand.N(time.Millisecond))
		}
	}
}

// choose uses only numbers that do not depend on the times of what has happened so far.
func (g *stressGoroutine) choose() (op int, mode holdMode, limit time.Duration) {
	total := 0
	for _, weight := range weights {
		total += weight
	}
	n := g.rng.IntN(total)
	for op = range weights {
		if n -= weights[op]; n < 0 {
			break
		}
	}
	mode = []holdMode{exclusive, write, read}[g.rng.IntN(3)]
	limit = time.Duration(g.rng.Int64N(int64(3 * time.Millisecond)))
	switch op {
	case doExclusive, doRemove:
		mode = exclusive
	case doWrite, doDowngrade:
		mode = write
	case doRead:
		mode = read
	}
	if op == doRemove && !g.order.Removals {
		op = doExclusive
	}
	return op, mode, limit
}

func (g *stressGoroutine) perform(op int, mode holdMode, limit time.Duration) {
	g.slot.attempts[op].Add(1)
	start := time.Now()
	g.slot.waiting.Store(start.UnixNano())
	h, err := g.acquire(op, mode, limit)
	wait := time.Since(start)
	g.slot.waiting.Store(0)
	if err != nil {
		if wanted := errors.Is(err, context.DeadlineExceeded) && op == doDeadline ||
			errors.Is(err, context.Canceled) && op == doCancel; wanted {
			g.slot.ended.Add(1)
			return
		}
		g.report(violation{What: "acquiring the lock has failed: " + err.Error()})
		time.Sleep(time.Second) // it may fail again and again
		return
	}
	if h == nil {
		return
	}
	g.slot.acquired[op].Add(1)
	if op != doTry {
		g.slot.waits[waitBucket(wait)].Add(1)
		g.slot.longest.Store(max(g.slot.longest.Load(), int64(wait)))
	}
	g.hold(h, op, mode)
}

func (g *stressGoroutine) acquire(op int, mode holdMode, limit time.Duration) (*workerHold, error) {
	ctx := context.Background()
	switch op {
	case doDeadline:
		limited, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		ctx = limited
	case doCancel:
		canceled, cancel := context.WithCancel(ctx)
		defer cancel()
		defer time.AfterFunc(limit, cancel).Stop()
		ctx = canceled
	}
	return g.lock.acquire(ctx, mode, op == doTry)
}

// hold is called with the lock held, and releases it.
func (g *stressGoroutine) hold(h *workerHold, op int, mode holdMode) {
	published := mode
	if mode == exclusive {
		published = write // it excludes the same others
	}
	g.judge(g.seat.begin(published, h.inode()), published)
	g.work()
	if op == doDowngrade {
		g.judge(g.seat.downgrade(), write)
		if err := h.downgrade(); err != nil {
			g.report(violation{What: "downgrading the lock has failed: " + err.Error()})
		}
		published = read
		g.work()
	}
	// The removal lets others acquire the lock, so it must come after the end of the hold.
	g.judge(g.seat.end(published), published)
	removed := op == doRemove && os.Remove(g.order.Lock) == nil
	err := h.release()
	if err != nil && !(removed && errors.Is(err, fasteners.ErrReplaced)) {
		own := g.seat.interval(g.seat.number, published)
		g.report(violation{What: "releasing the lock has failed: " + err.Error(), Holds: []interval{*own}})
	}
}

// work takes no time in most cases, and some at times.
func (g *stressGoroutine) work() {
	switch g.rng.IntN(16) {
	case 0:
		time.Sleep(rand.N(500 * time.Microsecond))
	case 1, 2:
		for end := time.Now().Add(rand.N(20 * time.Microsecond)); time.Now().Before(end); {
		}
	case 3:
		runtime.Gosched()
	}
}

// judge reports another hold that should not have been.
func (g *stressGoroutine) judge(other *interval, mode holdMode) {
	if other == nil {
		return
	}
	own := g.seat.interval(g.seat.number, mode)
	g.report(violation{What: "two holders at the same time",
		Holds: []interval{*own, *other}})
}

// report tells the first violations of a goroutine, and counts all.
func (g *stressGoroutine) report(v violation) {
	if g.slot.violations.Add(1) <= 3 {
		g.tell(stressMessage{Violation: &v})
	}
}
