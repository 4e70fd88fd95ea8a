package table

import "context"

// A queue has the goroutines that wait for one lock file, in order of arrival. Any of them can leave it
// in constant time.
type queue struct {
	head, tail *waiter
	tries      int // how many of them do not want to wait for another process
}

// A waiter is one goroutine in a queue.
type waiter struct {
	prev, next *waiter
	request    *Request
	mode       Mode
	try        bool

	// outcome may change once, from queued, under Table.mu. Then resolved is closed.
	outcome  outcome
	resolved chan struct{}
}

// An outcome is what becomes of a goroutine that wants the lock.
type outcome uint8

const (
	queued      outcome = iota // it waits for its turn
	leading                    // it leads
	granted                    // it is a holder
	grantedSame                // it is a holder, and its path named the file when it became one
	joining                    // it is a holder, but may have to let a writer of another process pass
	refused                    // the lock is held, and it does not wait
	stale                      // its path may name another file
)

func (q *queue) push(r *Request, mode Mode, try bool) *waiter {
	w := &waiter{prev: q.tail, request: r, mode: mode, try: try, resolved: make(chan struct{})}
	if q.tail == nil {
		q.head = w
	} else {
		q.tail.next = w
	}
	q.tail = w
	if try {
		q.tries++
	}
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
	if w.try {
		q.tries--
	}
}

// resolve tells w what has become of it. The caller has removed it from the queue.
func (w *waiter) resolve(o outcome) {
	w.outcome = o
	close(w.resolved)
}

// wait blocks until w is resolved or ctx is done. Thousands of goroutines may be here. So that the stack
// of each stays at the 2 kB that it begins with, the caller has used little of it: see BenchmarkWaiters.
//
//go:noinline
func (w *waiter) wait(ctx context.Context) {
	select {
	case <-w.resolved:
	case <-ctx.Done():
	}
}
