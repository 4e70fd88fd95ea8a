package worker

import (
	"os"
	"testing"
)

func newTestBoard(t *testing.T, workers, seats int) *Board {
	t.Helper()
	b, err := createBoard(workers, seats)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(b.path) })
	for i := range b.marks {
		b.admit(i)
	}
	return b
}

func TestBoardNoticesOverlap(t *testing.T) {
	for _, test := range []struct {
		a, b Mode
		want bool
	}{{Write, Write, true}, {Write, Read, true}, {Read, Write, true}, {Read, Read, false}} {
		t.Run(string(test.a+"/"+test.b), func(t *testing.T) {
			board := newTestBoard(t, 2, 1)
			a, b := board.Sit(0, 0), board.Sit(1, 0)
			check := func(what string, got *Interval, want bool) {
				t.Helper()
				if (got != nil) != want {
					t.Errorf("%s: got %v, want one: %v", what, got, want)
				}
			}
			// b within a
			check("a begins", a.Begin(test.a, 1), false)
			check("b begins", b.Begin(test.b, 2), test.want)
			check("b ends", b.End(test.b), false)
			check("a ends", a.End(test.a), test.want)
			// b after a
			check("a begins", a.Begin(test.a, 1), false)
			check("a ends", a.End(test.a), false)
			check("b begins", b.Begin(test.b, 2), false)
			check("b ends", b.End(test.b), false)
			// they overlap
			check("a begins", a.Begin(test.a, 1), false)
			check("b begins", b.Begin(test.b, 2), test.want)
			check("a ends", a.End(test.a), test.want)
			check("b ends", b.End(test.b), test.want)
		})
	}
}

func TestBoardDowngrade(t *testing.T) {
	board := newTestBoard(t, 2, 1)
	a, b := board.Sit(0, 0), board.Sit(1, 0)
	a.Begin(Write, 1)
	if v := a.Downgrade(); v != nil {
		t.Fatal(v)
	}
	if v := b.Begin(Read, 1); v != nil {
		t.Errorf("a reader beside a downgraded writer is in conflict: %+v", v)
	}
	b.End(Read)
	if v := b.Begin(Write, 1); v == nil {
		t.Errorf("a writer beside a downgraded one is not noticed by itself")
	}
	b.End(Write)
	if v := a.End(Read); v == nil {
		t.Errorf("a writer beside a downgraded one is not noticed by that")
	}
}

// TestBoardOfKilledProcess walks through the ways in which a process can be
// killed during a hold.
func TestBoardOfKilledProcess(t *testing.T) {
	board := newTestBoard(t, 2, 1)
	dead, b := board.Sit(0, 0), board.Sit(1, 0)

	dead.Begin(Write, 1)
	board.condemn(0)
	if v := b.Begin(Write, 1); v != nil {
		t.Errorf("a dead holder is in conflict: %+v", v)
	}
	board.admit(0)
	if v := b.End(Write); v != nil {
		t.Errorf("the admission of the next process is in conflict: %+v", v)
	}

	next := board.Sit(0, 0)
	next.Begin(Write, 1)
	if v := b.Begin(Write, 1); v == nil {
		t.Errorf("the next process is not noticed")
	}
	b.End(Write)

	board.condemn(0)
	if v := b.Begin(Write, 1); v != nil {
		t.Errorf("a process that may be dead is in conflict: %+v", v)
	}
	next.End(Write) // it is not
	if v := b.End(Write); v == nil {
		t.Errorf("a step of a process that is not dead yet is not noticed")
	}
}
