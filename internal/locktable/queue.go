package locktable

import (
	"context"
	"time"
)

// A queue has the goroutines that wait for one lock file, in order of arrival. Any of them can
// leave it in constant time.
type queue struct{ head, tail *waiter }

// A waiter is one goroutine in a queue.
type waiter struct {
	prev, next *waiter
	request    *Request
	since      time.Duration // since start
	mode       Mode

	// outcome changes once, from queued, under Table.mu. Then resolved is closed.
	outcome  outcome
	resolved chan struct{}
}

// An outcome is what becomes of a goroutine that wants the lock.
type outcome uint8

const (
	queued      outcome = iota // it waits in the queue
	leading                    // it leads
	granted                    // it is a holder
	grantedSame                // it is a holder, and its path named the file when it became one
	settled                    // a try, that has waited until the leader knew whether the lock is free
	stale                      // its path may name another file
)

func (q *queue) push(r *Request, mode Mode) *waiter {
	w := &waiter{
		prev:     q.tail,
		request:  r,
		since:    time.Since(start),
		mode:     mode,
		resolved: make(chan struct{}),
	}
	if q.tail == nil {
		q.head = w
	} else {
		q.tail.next = w
	}
	q.tail = w
	return w
}

func (q *queue) pop() *waiter {
	w := q.head
	if w != nil {
		q.remove(w)
	}
	return w
}

func (q *queue) remove(w *waiter) {
	if w.prev == nil {
		q.head = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		q.tail = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.prev, w.next = nil, nil
}

// resolve ends the wait of w, which the caller has removed from the queue.
func (w *waiter) resolve(o outcome) {
	w.outcome = o
	close(w.resolved)
}

// block blocks until w is resolved or ctx is done. Thousands of goroutines may be here, so
// their stacks should not grow beyond the 2 kB that each begins with: see BenchmarkWaiters.
//
//go:noinline
func (w *waiter) block(ctx context.Context) {
	select {
	case <-w.resolved:
	case <-ctx.Done():
	}
}
