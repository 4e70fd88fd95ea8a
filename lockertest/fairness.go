package lockertest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// testFairness checks who gets the lock next.
func (s *suite) testFairness(t *testing.T) {
	s.forEachWay(t, "Order", func(t *testing.T, w way) { s.testOrder(t, w, true) }, isExclusive)
	if s.OneQueue {
		s.forEachWay(t, "OrderOfSeveralLocks", func(t *testing.T, w way) { s.testOrder(t, w, false) }, isExclusive)
	}
	s.forEachWay(t, "WriterAmongReaders", s.testWriterAmongReaders, isShared)
}

// testOrder checks that waiters get the lock in the order of their arrival. It is not told when
// one has arrived, and gives each some time before it starts the next. If the order is another
// one, the time may have been too short: it tries again with more, until it can be sure.
func (s *suite) testOrder(t *testing.T, w way, one bool) {
	for between := brief / 4; ; between *= 5 {
		order, err := s.order(t, w, one, between)
		switch {
		case err != nil:
			t.Fatal(err)
		case slices.IsSorted(order):
			return
		case between > patience/100:
			t.Fatalf("waiters that arrived %v after each other got the lock in the order %v", between, order)
		}
	}
}

// order starts waiters with some time between them, and returns the order in which they get the
// lock.
func (s *suite) order(t *testing.T, w way, one bool, between time.Duration) (order []int, err error) {
	const waiters = 6
	name := lockName(t)
	holder := s.open(t, name, w)
	accesses := slices.Repeat([]access{holder}, waiters)
	for i := range accesses {
		if !one {
			accesses[i] = s.open(t, name, w)
		}
	}
	h := holder.mustAcquire(t)
	var mu sync.Mutex
	errs := make(chan error, waiters)
	for i, a := range accesses {
		go func() {
			h, err := a.acquire(context.Background(), a.lock)
			if err == nil {
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				err = h.release()
			}
			errs <- err
		}()
		time.Sleep(between)
	}
	mustRelease(t, h)
	for range waiters {
		err = errors.Join(err, receive(t, errs, "a waiter"))
	}
	return order, err
}

// testWriterAmongReaders checks that a writer gets the lock, though there is always a reader for
// as long as the lock lets later readers pass the writer.
func (s *suite) testWriterAmongReaders(t *testing.T, w way) {
	const readers, enough = 4, 1000
	name := lockName(t)
	writer := s.open(t, name, w.exclusive())
	one := s.open(t, name, w)
	accesses := []access{one, one, s.open(t, name, w), s.open(t, name, w)}
	var holds atomic.Int64 // number of read locks acquired so far
	var stop atomic.Bool
	read := func(a access) error {
		h, err := a.acquire(context.Background(), a.lock)
		if err != nil {
			return err
		}
		n := holds.Add(1)
		// A reader stays until another one has come. If the writer keeps the others out, none
		// comes. The tries are counted, and not the time: the whole process may be stopped in
		// between.
		for tries := 0; tries < 30 && holds.Load() == n && !stop.Load(); tries++ {
			time.Sleep(time.Millisecond)
		}
		return h.release()
	}
	errs := make(chan error, readers)
	for _, a := range accesses {
		go func() {
			var err error
			for err == nil && !stop.Load() {
				err = read(a)
			}
			errs <- err
		}()
	}
	for start := time.Now(); holds.Load() < 2*readers; time.Sleep(time.Millisecond) {
		if time.Since(start) > patience {
			stop.Store(true)
			t.Fatalf("%d readers have acquired the lock %d times in %v", readers, holds.Load(), patience)
		}
	}
	start, before := time.Now(), holds.Load()
	c := writer.start(context.Background())
	for len(c) == 0 {
		time.Sleep(time.Millisecond)
		passed, waited := holds.Load()-before, time.Since(start)
		if passed > enough && waited > patience/10 || waited > patience {
			t.Errorf("readers have acquired the lock %d times in the %v that a writer has waited", passed, waited)
			break
		}
	}
	stop.Store(true)
	mustRelease(t, writer.mustGet(t, c))
	for range readers {
		must(t, receive(t, errs, "a reader"))
	}
}
