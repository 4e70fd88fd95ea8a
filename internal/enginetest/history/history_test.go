package history

import (
	"context"
	"fmt"
	"testing"
)

var background = context.Background()

// newHistory returns a history with a clock that goes on at each look.
func newHistory() *History {
	h, now := New(), int64(0)
	h.now = func() int64 { now++; return now }
	return h
}

// acquire is called for a worker that acquires the lock and looks at its context.
func (h *History) acquire(worker int, write bool, token int64) *Hold {
	hold := h.Begin(worker, write)
	hold.Acquired(token)
	hold.Look(background)
	return hold
}

func (h *Hold) release() {
	h.Releasing()
	h.Released()
}

func TestHistories(t *testing.T) {
	const reads, writes = false, true
	done, cancel := context.WithCancel(background)
	cancel()
	for _, test := range []struct {
		name         string
		happens      func(h *History)
		overlaps     int
		linearizable bool
	}{
		{"nothing", func(*History) {}, 0, true},
		{"one after the other", func(h *History) {
			h.acquire(0, writes, 1).release()
			h.acquire(1, reads, 2).release()
			h.acquire(0, writes, 3).release()
		}, 0, true},
		{"two readers", func(h *History) {
			a, b := h.acquire(0, reads, 2), h.acquire(1, reads, 1)
			a.Look(background)
			b.Look(background)
			a.release()
			b.release()
		}, 0, true},
		{"two writers", func(h *History) {
			a, b := h.acquire(0, writes, 1), h.acquire(1, writes, 2)
			a.Look(background)
			a.release()
			b.release()
		}, 1, false},
		{"a writer beside a reader", func(h *History) {
			a, b := h.acquire(0, reads, 1), h.acquire(1, writes, 2)
			a.Look(background)
			a.release()
			b.release()
		}, 1, false},
		{"a reader beside a writer", func(h *History) {
			a, b := h.acquire(0, writes, 1), h.acquire(1, reads, 2)
			a.Look(background)
			a.release()
			b.release()
		}, 1, false},
		{"a writer beside another one that does not look", func(h *History) {
			a, b := h.acquire(0, writes, 1), h.acquire(1, writes, 2)
			a.release()
			b.release()
		}, 0, false},
		{"lost before another one has it", func(h *History) {
			a, b := h.acquire(0, writes, 1), h.acquire(1, writes, 2)
			if a.Look(done) {
				t.Error("a context that is done is taken for one that is not")
			}
			a.Lost()
			b.release()
		}, 0, true},
		{"lost, and not told", func(h *History) {
			a, b := h.acquire(0, writes, 1), h.acquire(1, writes, 2)
			a.Look(background)
			a.Lost()
			b.release()
		}, 1, true},
		{"released while it waits", func(h *History) {
			a, b := h.acquire(0, writes, 1), h.Begin(1, writes)
			a.Look(background)
			a.Releasing()
			b.Acquired(2)
			b.Look(background)
			a.Released()
			b.release()
		}, 0, true},
		{"never acquired", func(h *History) {
			a := h.acquire(0, writes, 1)
			h.Begin(1, writes)
			a.release()
		}, 0, true},
		{"a token that is used again", func(h *History) {
			h.acquire(0, writes, 1).release()
			h.acquire(1, writes, 1).release()
		}, 1, true},
		{"a token below that of a reader", func(h *History) {
			h.acquire(0, reads, 3).release()
			h.acquire(1, reads, 1).release()
			h.acquire(0, writes, 2).release()
		}, 1, true},
		{"no token", func(h *History) { h.acquire(0, writes, 0).release() }, 1, true},
	} {
		h := newHistory()
		h.Tokens = true
		test.happens(h)
		if o := h.Overlaps(); len(o) != test.overlaps {
			t.Errorf("%s: %q, want %d", test.name, o, test.overlaps)
		}
		if l := h.Linearizable(t); l != test.linearizable {
			t.Errorf("%s: linearizable: %v, want %v", test.name, l, test.linearizable)
		}
		r := &recorder{TB: t}
		h.Check(r)
		want := 0
		if test.overlaps > 0 {
			want++
		}
		if !test.linearizable {
			want++
		}
		if len(r.errors) != want {
			t.Errorf("%s: Check reports %q", test.name, r.errors)
		}
	}
}

func TestWithoutTokens(t *testing.T) {
	h := newHistory()
	h.acquire(0, true, 2).release()
	h.acquire(1, true, 1).release()
	if o := h.Overlaps(); len(o) > 0 {
		t.Errorf("%q", o)
	}
}

// A recorder is a test that only notes its errors.
type recorder struct {
	testing.TB
	errors []string
}

func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}
