package lease

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/go-fasteners/fasteners"
)

// A Lease is the time for which some locks are surely held, as far as this process knows. It has
// a deadline, before which the server grants them to no other holder. When that is over, the
// lease is lost, and remains so, even if the server still knows it: the holders have been told.
//
// The deadline is the time at which the last sign of life was sent that was answered, and the
// TTL, and less the margin:
//
//	this process                        server
//	sends a sign of life   ──────────▶  the TTL begins anew
//	     TTL − margin      ◀──────────  answers
//	deadline: lost
//	     margin                         the TTL is over: grants the locks to others
//
// To count from when the answer arrived would be wrong: it can have been on its way for any time.
//
// All methods may be called by any number of goroutines. None of them calls a function of an
// engine, so an engine may call them with its own mutex held.
type Lease struct {
	margin time.Duration
	ctx    context.Context // done when the lease is lost
	cancel context.CancelCauseFunc

	mu       sync.Mutex
	deadline time.Duration // on the clock of Now
	timer    *time.Timer
	lost     error // or nil
	closed   bool
	holds    map[*Hold]struct{} // those with a context
}

// New returns a lease that was granted for the TTL in the answer to a request that was sent at that
// time ([Now]). It is lost the margin before the TTL is over, which can be at once.
func New(sent, ttl, margin time.Duration) *Lease {
	l := &Lease{margin: margin, deadline: sent + ttl - margin, holds: map[*Hold]struct{}{}}
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	l.mu.Lock() // the deadline can be over already
	defer l.mu.Unlock()
	l.timer = time.AfterFunc(l.deadline-Now(), l.expire)
	return l
}

// Renew extends the lease: a sign of life that was sent at that time was answered, and has
// renewed it for the TTL. An answer that comes after the deadline comes too late, and changes
// nothing.
func (l *Lease) Renew(sent, ttl time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost == nil && Now() < l.deadline {
		l.deadline = max(l.deadline, sent+ttl-l.margin)
	}
}

// Deadline returns when the lease is lost, unless it is renewed before, on the clock of [Now].
func (l *Lease) Deadline() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.deadline
}

// Context returns a context that is done when the lease is lost. Its cause is what [Lease.Err]
// returns. It is for requests that are in vain then, and with [context.AfterFunc] for what is to be
// done then.
func (l *Lease) Context() context.Context { return l.ctx }

// Err returns why the lease is lost, and nil if it is not. It looks at the clock: after a stop of
// the process, or of the machine, the timer is late.
func (l *Lease) Err() error { return l.end(nil) }

// Lose makes the lease lost, unless it is lost already or closed. When Lose returns, the contexts
// of all its holds are done, and then that of the lease. Their cause wraps [fasteners.ErrLost]
// and cause.
func (l *Lease) Lose(cause error) {
	if !errors.Is(cause, fasteners.ErrLost) {
		cause = fmt.Errorf("%w: %w", fasteners.ErrLost, cause)
	}
	l.end(cause)
}

// Close ends a lease that is no longer needed, since all its locks were released. From then on it
// cannot be lost.
func (l *Lease) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.timer.Stop()
}

// end makes the lease lost if there is a cause, or its deadline is over, and returns why it is
// lost. Then the contexts of all holds are done, and so each caller ends them, even if another
// one is about to. It does so without the mutex, since the context of a hold can be derived from
// that of another one, which looks at the lease.
func (l *Lease) end(cause error) error {
	l.mu.Lock()
	if cause == nil && Now() >= l.deadline {
		cause = errExpired
	}
	if l.lost == nil && !l.closed && cause != nil {
		l.lost = cause
		l.timer.Stop()
	}
	lost := l.lost
	if lost == nil || l.ctx.Err() != nil {
		l.mu.Unlock()
		return lost
	}
	holds := slices.Collect(maps.Keys(l.holds))
	l.mu.Unlock()
	for _, h := range holds {
		h.lose(lost)
	}
	l.cancel(lost)
	return lost
}

// expire is called by the timer, which has another clock. The lease may have been renewed
// meanwhile.
func (l *Lease) expire() {
	if l.Err() != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost == nil && !l.closed {
		l.timer.Reset(l.deadline - Now())
	}
}

func (l *Lease) add(h *Hold) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holds[h] = struct{}{}
}

func (l *Lease) remove(h *Hold) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.holds, h)
}
