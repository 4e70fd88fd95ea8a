package lockertest

import (
	"context"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
)

// testCancelMeetsGrant cancels waits at about the time at which the lock is granted, while
// somebody else waits behind. Either the waiter has the lock, and the one behind gets it after
// that, or the one behind gets it at once.
//
// The three acquire the lock in all ways that make the waiter wait, and use one value or several.
func (s *suite) testCancelMeetsGrant(t *testing.T, w way) {
	name := lockName(t)
	values := map[bool][]access{} // by whether they are for readers and writers
	holders, behind := s.beside(w), s.beside(w)
	for _, o := range append([]way{w}, behind...) {
		for len(values[o.rw]) < 3 {
			values[o.rw] = append(values[o.rw], s.open(t, name, o))
		}
	}
	holders = slices.DeleteFunc(holders, func(o way) bool { return !o.excludes(w) })
	// First those that cannot share the lock with the waiter.
	slices.SortStableFunc(behind, func(a, b way) int {
		switch {
		case a.excludes(w) == b.excludes(w):
			return 0
		case a.excludes(w):
			return -1
		}
		return 1
	})
	access := func(value int, w way) access { return values[w.rw][value].as(w) }

	// What a grant takes after a release.
	holder, waiter := access(0, w.exclusive()), access(1, w)
	takes := 10 * brief
	for range 3 { // the least is not that of a machine with other things to do
		h := holder.mustAcquire(t)
		c := waitFor(brief/4, waiter.start(context.Background()))
		start := time.Now()
		mustRelease(t, h)
		mustRelease(t, waiter.mustGet(t, c))
		takes = min(takes, time.Since(start))
	}
	m := newMeeting(2*takes + time.Millisecond/2)

	var granted, rounds int
	start := time.Now()
	span := hunting
	if testing.Short() {
		span /= 4
	}
	for d := time.Duration(0); d < span || d < 10*span && rounds < 40; d = time.Since(start) {
		use := [][3]int{{0, 1, 2}, {0, 0, 1}, {0, 1, 1}, {0, 1, 0}, {0, 0, 0}}[rounds%5]
		holder := access(use[0], holders[rounds%len(holders)])
		third := access(use[2], behind[rounds/len(holders)%len(behind)])
		if m.round(t, holder, access(use[1], w), third) {
			granted++
		}
		if t.Failed() {
			break
		}
		holder.mustBeFree(t)
		rounds++
	}
	t.Logf("%d of %d were granted, the last cancellations came about %v after the releases",
		granted, rounds, m.middle)
}

// A meeting finds the moment at which a grant meets a cancellation: a waiter that is canceled
// earlier fails, and one that is canceled later has the lock. By what happens, each attempt is
// nearer to it.
type meeting struct {
	longest      time.Duration // between the two
	middle, step time.Duration // the middle is a time after the release, and negative before it
	granted      bool          // what the last attempt near the middle has come to
	attempts     int
}

func newMeeting(longest time.Duration) *meeting {
	return &meeting{longest: longest, step: longest / 4}
}

// next returns how long after the release to cancel, or before it. Every second one has nothing to
// do with the moment that has been found: it may be the wrong one.
func (m *meeting) next() time.Duration {
	m.attempts++
	if m.attempts%2 == 0 {
		return m.middle + rand.N(m.step) - m.step/2
	}
	d := m.longest >> rand.N(12)
	d -= rand.N(d/2 + 1)
	if m.attempts%4 == 1 {
		return -d
	}
	return d
}

// learn is told whether the waiter had the lock.
func (m *meeting) learn(granted bool) {
	if m.attempts%2 != 0 {
		return
	}
	if granted == m.granted {
		m.step += m.step / 2
	} else {
		m.step /= 2
	}
	m.step, m.granted = min(max(m.step, 200*time.Nanosecond), 2*m.longest), granted
	if granted {
		m.middle -= m.step
	} else {
		m.middle += m.step
	}
	m.middle = min(max(m.middle, -m.longest), 20*brief) // what a grant takes can have been more
}

// round lets a grant meet a cancellation, and reports whether the waiter had the lock.
func (m *meeting) round(t *testing.T, holder, waiter, behind access) bool {
	t.Helper()
	h := holder.mustAcquire(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r := &recorder{stay: m.longest / 2} // the grants of two holders can come one after the other
	canceled, third := make(chan error, 1), make(chan error, 1)
	go func() { canceled <- r.hold(ctx, waiter) }()
	time.Sleep(m.longest / 4)
	go func() { third <- r.hold(context.Background(), behind) }()
	time.Sleep(m.longest / 4)
	if after := m.next(); after < 0 {
		cancel()
		pause(-after)
		mustRelease(t, h)
	} else {
		begun := make(chan bool)
		go func() {
			close(begun)
			pause(after)
			cancel()
		}()
		<-begun
		mustRelease(t, h)
	}
	err := receive(t, canceled, waiter.name+" with a context that is done")
	must(t, receive(t, third, behind.name+" behind a waiter whose cancellation met the grant"))
	m.learn(err == nil)
	if err != nil {
		checkError(t, err, "acquire", context.Canceled)
		checkError(t, waiter.release(waiter.lock), "release", fasteners.ErrNotAcquired)
	}
	r.checkOverlaps(t)
	return err == nil
}

// pause waits for a time that can be much shorter than what a sleep takes.
func pause(d time.Duration) {
	start := time.Now()
	if d > 2*time.Millisecond {
		time.Sleep(d - time.Millisecond)
	}
	for time.Since(start) < d {
		runtime.Gosched()
	}
}
