package main

import (
	"math"
	"os"
	"testing"
	"time"
)

func newTestBoard(t *testing.T, workers, seats int) *board {
	t.Helper()
	b, path, err := createBoard(workers, seats)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(path) })
	for i := range b.marks {
		b.admit(i)
	}
	return b
}

func TestBoardNoticesOverlap(t *testing.T) {
	for _, test := range []struct {
		a, b holdMode
		want bool
	}{{write, write, true}, {write, read, true}, {read, write, true}, {read, read, false}} {
		t.Run(string(test.a+"/"+test.b), func(t *testing.T) {
			board := newTestBoard(t, 2, 1)
			a, b := board.sit(0, 0), board.sit(1, 0)
			check := func(what string, got *interval, want bool) {
				t.Helper()
				if (got != nil) != want {
					t.Errorf("%s: got %v, want one: %v", what, got, want)
				}
			}
			// b within a
			check("a begins", a.begin(test.a, 1), false)
			check("b begins", b.begin(test.b, 2), test.want)
			check("b ends", b.end(test.b), false)
			check("a ends", a.end(test.a), test.want)
			// b after a
			check("a begins", a.begin(test.a, 1), false)
			check("a ends", a.end(test.a), false)
			check("b begins", b.begin(test.b, 2), false)
			check("b ends", b.end(test.b), false)
			// they overlap
			check("a begins", a.begin(test.a, 1), false)
			check("b begins", b.begin(test.b, 2), test.want)
			check("a ends", a.end(test.a), test.want)
			check("b ends", b.end(test.b), test.want)
		})
	}
}

func TestBoardDowngrade(t *testing.T) {
	board := newTestBoard(t, 2, 1)
	a, b := board.sit(0, 0), board.sit(1, 0)
	a.begin(write, 1)
	if v := a.downgrade(); v != nil {
		t.Fatal(v)
	}
	if v := b.begin(read, 1); v != nil {
		t.Errorf("a reader beside a downgraded writer is in conflict: %+v", v)
	}
	b.end(read)
	if v := b.begin(write, 1); v == nil {
		t.Errorf("a writer beside a downgraded one is not noticed by itself")
	}
	b.end(write)
	if v := a.end(read); v == nil {
		t.Errorf("a writer beside a downgraded one is not noticed by that")
	}
}

// TestBoardOfKilledProcess walks through the ways in which a process can be killed during a hold.
func TestBoardOfKilledProcess(t *testing.T) {
	board := newTestBoard(t, 2, 1)
	dead, b := board.sit(0, 0), board.sit(1, 0)

	dead.begin(write, 1)
	board.condemn(0)
	if v := b.begin(write, 1); v != nil {
		t.Errorf("a dead holder is in conflict: %+v", v)
	}
	board.admit(0)
	if v := b.end(write); v != nil {
		t.Errorf("the admission of the next process is in conflict: %+v", v)
	}

	next := board.sit(0, 0)
	next.begin(write, 1)
	if v := b.begin(write, 1); v == nil {
		t.Errorf("the next process is not noticed")
	}
	b.end(write)

	board.condemn(0)
	if v := b.begin(write, 1); v != nil {
		t.Errorf("a process that may be dead is in conflict: %+v", v)
	}
	next.end(write) // it is not
	if v := b.end(write); v == nil {
		t.Errorf("a step of a process that is not dead yet is not noticed")
	}
}

func TestWaitBuckets(t *testing.T) {
	last := -1
	for _, d := range []time.Duration{0, 1, 8, 9, 15, 16, 17, 100, 1e3, 123456, 1e6, 1e9, 3600e9, math.MaxInt64} {
		bucket := waitBucket(d)
		if bucket < last || bucket >= waitBuckets {
			t.Errorf("waitBucket(%d) = %d, after %d", d, bucket, last)
		}
		last = bucket
		if most := waitOf(bucket); most < d || d >= 16 && float64(most) > 1.125*float64(d) {
			t.Errorf("waitOf(waitBucket(%d)) = %d", d, most)
		}
	}
}
