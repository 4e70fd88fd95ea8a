package lockertest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
)

// testExclusion lets goroutines acquire a lock all the time, through one value and through several.
func (s *suite) testExclusion(t *testing.T) {
	var exclusive, rw []way
	for _, w := range s.ways {
		if w.rw {
			rw = append(rw, w)
		} else {
			exclusive = append(exclusive, w)
		}
	}
	run := func(name string, ways []way) {
		t.Run(name, func(t *testing.T) {
			t.Run("OneLock", func(t *testing.T) { s.compete(t, ways, true).checkOverlaps(t) })
			t.Run("SeveralLocks", func(t *testing.T) { s.compete(t, ways, false).checkOverlaps(t) })
		})
	}
	if exclusive != nil {
		run("Exclusive", exclusive)
	}
	if rw != nil {
		run("ReadersAndWriters", rw)
	}
	if exclusive != nil && rw != nil && !s.Separate {
		run("Both", s.ways)
		s.forEachWay(t, "OtherKind", s.testOtherKind, isAny)
	}
}

// compete runs goroutines that acquire a lock in different ways, and returns when they have held
// it. If they use one lock value, it is one of each kind.
func (s *suite) compete(t *testing.T, ways []way, one bool) *recorder {
	const goroutines = 8
	name := lockName(t)
	var accesses []access
	for i := range goroutines {
		a := s.open(t, name, ways[i%len(ways)])
		for _, earlier := range accesses {
			if one && earlier.rw == a.rw {
				a.lock = earlier.lock
			}
		}
		accesses = append(accesses, a)
	}
	r := new(recorder)
	var ready sync.WaitGroup
	ready.Add(goroutines)
	must(t, inParallel(t, goroutines, func(i int) error {
		ready.Done()
		ready.Wait()
		for round := range rounds(20) {
			// How an implementation waits can depend on how the context can end.
			ctx, cancel := context.Background(), context.CancelFunc(func() {})
			switch (i + round) % 3 {
			case 1:
				ctx, cancel = context.WithCancel(ctx)
			case 2:
				ctx, cancel = context.WithTimeout(ctx, time.Hour)
			}
			err := r.hold(ctx, accesses[i])
			cancel()
			if err != nil {
				return err
			}
		}
		return nil
	}))
	return r
}

// A recorder records holds of one lock, and counts the exclusive ones.
type recorder struct {
	stay      time.Duration // how long to hold, at least
	clock     atomic.Int64
	mu        sync.Mutex
	intervals []interval

	// counter is incremented in each exclusive hold, by a load and a store: if two exclude each
	// other, no increment is lost. Both are atomic, since the race detector does not know of an
	// order that another process makes. changed is how many readers have seen it change.
	counter, changed atomic.Int64
}

// An interval is the time of a hold, by the clock of a recorder.
type interval struct {
	way
	from, to int64
	token    int64
	hasToken bool
}

// hold acquires a lock and releases it.
func (r *recorder) hold(ctx context.Context, a access) error {
	h, err := a.acquire(ctx, a.lock)
	if err != nil {
		return fmt.Errorf("%s: %w", a.name, err)
	}
	i := interval{way: a.way, from: r.clock.Add(1)}
	counter := r.counter.Load()
	switch { // so that others that can acquire the lock do
	case r.stay > 0:
		time.Sleep(r.stay)
	case i.from%8 < 2: // one of four
		time.Sleep(100 * time.Microsecond)
	}
	runtime.Gosched()
	if h.ctx != nil {
		i.token, i.hasToken = fasteners.Token(h.ctx)
		if h.ctx.Err() != nil && ctx.Err() == nil {
			err = fmt.Errorf("the lock is held, and the context of the hold is done: %w", context.Cause(h.ctx))
		}
	}
	if !a.shared {
		r.counter.Store(counter + 1)
	} else if r.counter.Load() != counter {
		r.changed.Add(1)
	}
	i.to = r.clock.Add(1)
	r.mu.Lock()
	r.intervals = append(r.intervals, i)
	r.mu.Unlock()
	return errors.Join(err, h.release())
}

// checkOverlaps checks that no two holds overlap, unless both are shared.
func (r *recorder) checkOverlaps(t *testing.T) {
	t.Helper()
	var overlaps, exclusive int64
	var example string
	for i, a := range r.intervals {
		if !a.shared {
			exclusive++
		}
		for _, b := range r.intervals[:i] {
			if (!a.shared || !b.shared) && a.from < b.to && b.from < a.to {
				overlaps++
				example = fmt.Sprintf("one by %s at the times %d to %d, another by %s at %d to %d",
					a.name, a.from, a.to, b.name, b.from, b.to)
			}
		}
	}
	if overlaps > 0 {
		t.Errorf("%d holds overlap of %d: %s", overlaps, len(r.intervals), example)
	}
	if n := r.counter.Load(); n != exclusive {
		t.Errorf("%d increments under the lock have made %d", exclusive, n)
	}
	if n := r.changed.Load(); n > 0 {
		t.Errorf("%d readers have seen a writer write", n)
	}
}

// testOtherKind checks that a hold of a lock of each kind excludes the other kind.
func (s *suite) testOtherKind(t *testing.T, w way) {
	name := lockName(t)
	a := s.open(t, name, w)
	others := []way{acquire}
	if !w.rw {
		others = []way{acquireRead, acquireWrite}
	}
	for _, o := range others {
		h, other := a.mustAcquire(t), s.open(t, name, o)
		c := other.startWaiting(t, t.Context())
		mustRelease(t, h)
		h = other.mustGet(t, c)
		a.mustBeHeld(t)
		mustRelease(t, h)
	}
	a.mustBeFree(t)
}

// testSharing checks that readers hold a lock together, that they and a writer exclude each
// other, and that the other side gets the lock when the last holder has released it.
func (s *suite) testSharing(t *testing.T, w way) {
	name := lockName(t)
	first := s.open(t, name, w)
	readers := []access{first, first, s.open(t, name, w), s.open(t, name, w)}
	writer := s.open(t, name, w.exclusive())
	var holds []*holding
	for _, r := range readers {
		holds = append(holds, r.mustAcquire(t))
	}
	c := writer.startWaiting(t, t.Context())
	for _, h := range holds {
		writer.stillWaits(t, c)
		mustRelease(t, h)
	}
	h := writer.mustGet(t, c)
	var waiting []<-chan result
	for _, r := range readers {
		waiting = append(waiting, r.startWaiting(t, t.Context()))
	}
	mustRelease(t, h)
	holds = nil
	for i, r := range readers { // none releases the lock before all have it
		holds = append(holds, r.mustGet(t, waiting[i]))
	}
	writer.mustBeHeld(t)
	for _, h := range holds {
		mustRelease(t, h)
	}
	writer.mustBeFree(t)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
