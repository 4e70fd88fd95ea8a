package itest

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// A history has what the clients of one lock have done and believed.
type history struct {
	start time.Time

	mu         sync.Mutex
	operations []porcupine.Operation
	beliefs    []belief
}

// A belief is the time from when a hold was granted until its context was done or its release began.
type belief struct {
	shared   bool
	from, to int64
	client   int
}

// An input is what an operation does with the lock.
type input struct {
	what   what
	shared bool
}

type what string

const (
	acquires what = "acquires"
	releases what = "releases" // returned nil
	loses    what = "loses"    // at some time in a hold whose release returned ErrLost
)

func newHistory() *history { return &history{start: time.Now()} }

func (h *history) now() int64 { return int64(time.Since(h.start)) }

func (h *history) add(client int, in input, from, to int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.operations = append(h.operations, porcupine.Operation{ClientId: client, Input: in, Call: from, Return: to})
}

func (h *history) believe(b belief) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.beliefs = append(h.beliefs, b)
}

// overlaps returns pairs of beliefs that exclude each other.
func (h *history) overlaps() (found []string) {
	slices.SortFunc(h.beliefs, func(a, b belief) int { return int(a.from - b.from) })
	var lastWriter, lastReader belief
	for _, b := range h.beliefs {
		for _, earlier := range []belief{lastWriter, lastReader} {
			if b.from < earlier.to && !(b.shared && earlier.shared) {
				found = append(found, fmt.Sprintf("client %d at %v, client %d since %v until %v later", b.client,
					time.Duration(b.from), earlier.client, time.Duration(earlier.from), time.Duration(earlier.to-b.from)))
			}
		}
		last := &lastWriter
		if b.shared {
			last = &lastReader
		}
		if b.to > last.to {
			*last = b
		}
	}
	return found
}

// The state of the model: -1 if a writer holds the lock, otherwise the number of readers.
var model = porcupine.Model{
	Init: func() any { return 0 },
	Step: func(state, in, _ any) (bool, any) {
		holders, op := state.(int), in.(input)
		switch {
		case op.what == acquires && op.shared:
			return holders >= 0, holders + 1
		case op.what == acquires:
			return holders == 0, -1
		case op.shared:
			return holders > 0, holders - 1
		}
		return holders == -1, 0
	},
	DescribeOperation: func(in, _ any) string { return fmt.Sprint(in) },
}

// linearizable reports whether the history is one of a lock that is never held by two that exclude each
// other.
func (h *history) linearizable(t *testing.T) bool {
	t.Helper()
	start := time.Now()
	result := porcupine.CheckOperationsTimeout(model, h.operations, time.Minute)
	t.Logf("%d operations: %s, found in %v", len(h.operations), result, time.Since(start).Round(time.Millisecond))
	if result == porcupine.Unknown {
		t.Fatal("not found out in a minute")
	}
	return result == porcupine.Ok
}
