package table

import "context"

// A queue has the goroutines that wait for one lock file, in order of arrival.
// Any of them can leave it in constant time.
type queue struct {
	head, tail *waiter
	tries      int // how many of them only try
}

// A waiter is one goroutine in a queue.
type waiter struct {
	prev, next *waiter
	request    *Request
	mode       Mode
	try        bool

	// state may change once, from queued, under Table.mu. Then wake is
	// closed.
	state outcome
	wake  chan struct{}
}

func (q *queue) front() *waiter { return q.head }

func (q *queue) push(r *Request, mode Mode, try bool) *waiter {
	w := &waiter{prev: q.tail, request: r, mode: mode, try: try, wake: make(chan struct{})}
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

// wait waits until w is settled or ctx is done. Thousands may be here, and to keep the stack of each
// at the 2 kB that it begins with, who calls this has used little of it: see BenchmarkWaiters.
//
//go:noinline
func (w *waiter) wait(ctx context.Context) {
	select {
	case <-w.wake:
	case <-ctx.Done():
	}
}

// settle tells w what has become of its wish. It is not in the queue any more.
func (w *waiter) settle(s outcome) {
	w.state = s
	close(w.wake)
}
