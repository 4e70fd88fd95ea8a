// Package history checks what the users of a lock have seen: that no two of them took themselves
// to be holders that exclude each other, and that there is an order of what they did in which a
// lock can do it.
package history

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// A History is what workers have done with a lock for readers and writers. A worker does one
// thing at a time; there are at most 64.
type History struct {
	// Tokens says that those of a holder must be greater than those of earlier ones that exclude
	// it.
	Tokens bool

	now        func() int64 // the time since the start, which is not 0
	mu         sync.Mutex
	operations []porcupine.Operation
	beliefs    []belief
}

// New returns an empty history.
func New() *History {
	start := time.Now()
	return &History{now: func() int64 { return max(int64(time.Since(start)), 1) }}
}

// A belief is a time in which a worker took itself to be a holder: from when it had acquired the
// lock to before the last look at the context of the hold that found it not done.
type belief struct {
	worker   int
	write    bool
	token    int64
	from, to int64 // 0 if no look has
}

func (b belief) String() string {
	return fmt.Sprintf("worker %d (write %v, token %d) from %v to %v", b.worker, b.write, b.token,
		time.Duration(b.from), time.Duration(b.to))
}

// An event is the input of an operation: a worker acquires the lock, or no longer holds it.
type event struct {
	worker         int
	write, acquire bool
}

// A Hold is what one worker records of a hold. It has to call Acquired when it has the lock, then
// Look, Releasing, and Released or Lost.
type Hold struct {
	history                    *History
	belief                     belief
	begun, acquired, releasing int64
}

// Begin is called before a worker acquires the lock.
func (h *History) Begin(worker int, write bool) *Hold {
	return &Hold{history: h, belief: belief{worker: worker, write: write}, begun: h.now()}
}

// Acquired is called when the worker has acquired the lock.
func (h *Hold) Acquired(token int64) {
	h.acquired, h.belief.token = h.history.now(), token
}

// Look looks at the context of the hold and reports whether it is not done. If so, the worker took
// itself to be the holder until before that look, and has done so since it acquired the lock.
func (h *Hold) Look(held context.Context) bool {
	now := h.history.now()
	if held.Err() != nil {
		return false
	}
	h.belief.from, h.belief.to = h.acquired, now // a context that is done stays so
	return true
}

// Age returns for how long the worker has had the lock.
func (h *Hold) Age() time.Duration { return time.Duration(h.history.now() - h.acquired) }

// Releasing is called before the worker releases the lock.
func (h *Hold) Releasing() { h.releasing = h.history.now() }

// Released is called when the worker has released the lock.
func (h *Hold) Released() { h.end(h.releasing) }

// Lost is called instead of Released if the lock was lost: at some time since it was acquired.
func (h *Hold) Lost() { h.end(h.acquired) }

func (h *Hold) end(from int64) {
	to := h.history.now()
	h.history.mu.Lock()
	defer h.history.mu.Unlock()
	add := func(acquire bool, from, to int64) {
		worker, write := h.belief.worker, h.belief.write
		h.history.operations = append(h.history.operations,
			porcupine.Operation{ClientId: worker, Input: event{worker, write, acquire}, Call: from, Return: to})
	}
	add(true, h.begun, h.acquired)
	add(false, from, to)
	if h.belief.from > 0 {
		h.history.beliefs = append(h.history.beliefs, h.belief)
	}
}

// Check reports what is wrong as errors of the test.
func (h *History) Check(tb testing.TB) {
	tb.Helper()
	if o := h.Overlaps(); len(o) > 0 {
		tb.Errorf("%d times two took themselves to be the holder: %s", len(o), o[0])
	}
	if result := h.linearizable(tb); result != porcupine.Ok {
		tb.Errorf("the history of %d operations is not linearizable: %v", len(h.operations), result)
	}
}

// Overlaps describes the times at which a worker took itself to be a holder while another one that
// excludes it did, or had a token that was not greater than that of an earlier one.
func (h *History) Overlaps() (found []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	slices.SortFunc(h.beliefs, func(a, b belief) int { return cmp.Compare(a.from, b.from) })
	var writer, reader belief // of those that began before, the ones that end last
	var writerToken, readerToken int64
	for _, b := range h.beliefs {
		earlier, token := writer, writerToken
		if b.write {
			token = max(token, readerToken)
			if reader.to > earlier.to {
				earlier = reader
			}
		}
		switch {
		case b.from < earlier.to:
			found = append(found, fmt.Sprintf("%v, and %v", earlier, b))
		case h.Tokens && b.token <= token:
			found = append(found, fmt.Sprintf("after token %d, %v", token, b))
		}
		last, greatest := &reader, &readerToken
		if b.write {
			last, greatest = &writer, &writerToken
		}
		if b.to > last.to {
			*last = b
		}
		*greatest = max(*greatest, b.token)
	}
	return found
}

// Linearizable reports whether there is an order of all that was done in which a lock can do it.
func (h *History) Linearizable(tb testing.TB) bool {
	tb.Helper()
	result := h.linearizable(tb)
	if result == porcupine.Unknown {
		tb.Fatalf("not known after %v", longest)
	}
	return result == porcupine.Ok
}

const longest = time.Minute // for a history

func (h *History) linearizable(tb testing.TB) porcupine.CheckResult {
	tb.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	start := time.Now()
	result := porcupine.CheckOperationsTimeout(lockModel, h.operations, longest)
	tb.Logf("%d operations: %s, found in %v", len(h.operations), result, time.Since(start).Round(time.Millisecond))
	return result
}

// lockModel is a lock for readers and writers.
var lockModel = porcupine.Model{
	Init: func() any { return lockState{} },
	Step: func(state, input, _ any) (bool, any) {
		s, e := state.(lockState), input.(event)
		holder := uint64(1) << e.worker
		switch {
		case e.acquire && e.write:
			return s == lockState{}, lockState{writer: holder}
		case e.acquire:
			return s.writer == 0 && s.readers&holder == 0, lockState{readers: s.readers | holder}
		case e.write:
			return s.writer == holder, lockState{}
		}
		return s.readers&holder != 0, lockState{readers: s.readers &^ holder}
	},
}

// A lockState has a bit for each worker.
type lockState struct{ writer, readers uint64 }
