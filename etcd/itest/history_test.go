package itest

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// A history is what workers have done with a lock, with times since its start.
type history struct {
	start      time.Time
	mu         sync.Mutex
	operations []porcupine.Operation
	beliefs    []belief
}

// A belief is a time in which a worker took itself to be a holder: from after its first look at the
// context to before the last one, of those that said that it was not done.
type belief struct {
	worker   int
	write    bool
	token    int64
	from, to int64
}

// An event is the input of an operation: a worker acquires the lock, or no longer holds it.
type event struct {
	worker         int
	write, acquire bool
}

func newHistory() *history { return &history{start: time.Now()} }

// now returns the time, which is not 0.
func (h *history) now() int64 { return max(int64(time.Since(h.start)), 1) }

func (h *history) operation(worker int, e event, from, to int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.operations = append(h.operations, porcupine.Operation{ClientId: worker, Input: e, Call: from, Return: to})
}

func (h *history) believed(b belief) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.beliefs = append(h.beliefs, b)
}

// overlaps returns the number of beliefs that begin while another one that excludes them goes on, or have
// a token that is not greater than that of an earlier one.
func (h *history) overlaps() (n int) {
	all := slices.DeleteFunc(slices.Clone(h.beliefs), func(b belief) bool { return b.from == 0 || b.to < b.from })
	slices.SortFunc(all, func(a, b belief) int { return cmp.Compare(a.from, b.from) })
	var lastWriter, lastReader belief // of those that began before, the ones that end last
	var writerToken, readerToken int64
	for _, b := range all {
		earlier, token := lastWriter.to, writerToken
		if b.write {
			earlier, token = max(earlier, lastReader.to), max(token, readerToken)
		}
		if b.from < earlier || b.token <= token {
			n++
		}
		if b.write {
			lastWriter.to, writerToken = max(lastWriter.to, b.to), max(writerToken, b.token)
		} else {
			lastReader.to, readerToken = max(lastReader.to, b.to), max(readerToken, b.token)
		}
	}
	return n
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
