package stress

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"runtime"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/worker"
)

// The operations: what a goroutine of a worker does, one after the other, as
// chance wants it.
const (
	doExclusive = iota
	doWrite
	doRead
	doTry       // any mode
	doDeadline  // any mode, with a short time to wait
	doCancel    // any mode, with a context that another goroutine cancels
	doDowngrade // write, then read
	doRemove    // exclusive; the holder removes the lock file before it releases the lock
)

var operationNames = [worker.Operations]string{
	"exclusive", "write", "read", "try", "deadline", "cancel", "downgrade", "remove",
}

// weights tells how often each operation is chosen.
var weights = [worker.Operations]int{20, 15, 25, 15, 8, 8, 6, 3}

// A client is a goroutine that acquires and releases the lock until the run ends.
type client struct {
	*generator
	lock  worker.Lock // its own, or the one that is shared
	seat  *worker.Seat
	tally *worker.Tally
	rng   *rand.Rand
}

func (g *generator) newClient(number int) *client {
	o := &g.order
	c := &client{generator: g, lock: g.shared, seat: g.board.Sit(o.Number, number)}
	c.tally = c.seat.Tally()
	c.rng = rand.New(rand.NewPCG(o.Seed, uint64(o.Number)<<48|o.Process<<16|uint64(number)))
	if number%2 == 1 {
		if own, err := o.NewLock(false); err == nil {
			c.lock = own
		}
	}
	return c
}

func (c *client) run() {
	for {
		switch c.board.Phase() {
		case worker.Stopped:
			return
		case worker.Paused:
			time.Sleep(10 * time.Millisecond)
			continue
		}
		c.perform(c.choose())
		if c.rng.IntN(4) == 0 {
			time.Sleep(rand.N(time.Millisecond))
		}
	}
}

// choose uses only numbers that do not depend on the times of what has happened
// so far.
func (c *client) choose() (op int, mode worker.Mode, limit time.Duration) {
	total := 0
	for _, weight := range weights {
		total += weight
	}
	n := c.rng.IntN(total)
	for op = range weights {
		if n -= weights[op]; n < 0 {
			break
		}
	}
	mode = []worker.Mode{worker.Exclusive, worker.Write, worker.Read}[c.rng.IntN(3)]
	limit = time.Duration(c.rng.Int64N(int64(3 * time.Millisecond)))
	switch op {
	case doExclusive, doRemove:
		mode = worker.Exclusive
	case doWrite, doDowngrade:
		mode = worker.Write
	case doRead:
		mode = worker.Read
	}
	if op == doRemove && !c.order.Removals {
		op = doExclusive
	}
	return op, mode, limit
}

func (c *client) perform(op int, mode worker.Mode, limit time.Duration) {
	c.tally.Attempts[op].Add(1)
	start := time.Now()
	c.tally.Waiting.Store(start.UnixNano())
	h, err := c.acquire(op, mode, limit)
	wait := time.Since(start)
	c.tally.Waiting.Store(0)
	if err != nil {
		if wanted := errors.Is(err, context.DeadlineExceeded) && op == doDeadline ||
			errors.Is(err, context.Canceled) && op == doCancel; wanted {
			c.tally.Ended.Add(1)
			return
		}
		c.report(violation{What: "acquiring the lock has failed: " + err.Error()})
		time.Sleep(time.Second) // it may fail again and again
		return
	}
	if h == nil {
		return
	}
	c.tally.Acquired[op].Add(1)
	if op != doTry {
		c.tally.Waits[worker.WaitBucket(wait)].Add(1)
		c.tally.Longest.Store(max(c.tally.Longest.Load(), int64(wait)))
	}
	c.hold(h, op, mode)
}

func (c *client) acquire(op int, mode worker.Mode, limit time.Duration) (*worker.Hold, error) {
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
	return c.lock.Acquire(ctx, mode, op == doTry)
}

// hold is called with the lock held, and releases it.
func (c *client) hold(h *worker.Hold, op int, mode worker.Mode) {
	published := mode
	if mode == worker.Exclusive {
		published = worker.Write // it excludes the same others
	}
	c.judge(c.seat.Begin(published, h.Inode()), published)
	c.work()
	if op == doDowngrade {
		c.judge(c.seat.Downgrade(), worker.Write)
		if err := h.Downgrade(); err != nil {
			c.report(violation{What: "downgrading the lock has failed: " + err.Error()})
		}
		published = worker.Read
		c.work()
	}
	// The removal lets others acquire the lock, so it must come after the end
	// of the hold.
	c.judge(c.seat.End(published), published)
	removed := op == doRemove && os.Remove(c.order.Lock) == nil
	err := h.Release()
	if err != nil && !(removed && errors.Is(err, fasteners.ErrReplaced)) {
		own := c.seat.Own(published)
		c.report(violation{What: "releasing the lock has failed: " + err.Error(),
			Holds: []worker.Interval{*own}})
	}
}

// work takes no time in most cases, and some at times.
func (c *client) work() {
	switch c.rng.IntN(16) {
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
func (c *client) judge(other *worker.Interval, mode worker.Mode) {
	if other == nil {
		return
	}
	own := c.seat.Own(mode)
	c.report(violation{What: "two holders at the same time",
		Holds: []worker.Interval{*own, *other}})
}

// report tells the first violations of a goroutine, and counts all.
func (c *client) report(v violation) {
	if c.tally.Violations.Add(1) <= 3 {
		c.tell(message{Violation: &v})
	}
}
