package locktable

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners/internal/stress"
)

// The explorer has few goroutines. Here the queue is long: a waiter is canceled at any moment,
// also at that of its grant, and the waiters behind it still acquire the lock.
func TestStress(t *testing.T) {
	for _, ownsLocks := range []bool{false, true} {
		t.Run(fmt.Sprintf("ownsLocks=%v", ownsLocks), func(t *testing.T) {
			s := &crowd{kernel: newKernel(), weights: map[ID]int{}}
			var workers sync.WaitGroup
			var tables []*Table
			for pid := range 3 {
				p := &proc{kernel: s.kernel, pid: pid, ownsLocks: ownsLocks}
				table := New(p, time.Duration(pid)*time.Millisecond)
				tables = append(tables, table)
				for g := range 20 {
					path := path
					if g%5 == 0 {
						path = "read-only"
					}
					workers.Go(func() { s.work(t, table, path) })
				}
			}
			workers.Wait()
			for _, table := range tables {
				mustBeEmpty(t, table)
			}
			mustBeClean(t, s.kernel)
		})
	}
}

type crowd struct {
	*kernel
	weights map[ID]int // of the holders of each file: a reader weighs 1, a writer exclusiveWeight
}

const exclusiveWeight = 1000

// work acquires and releases the lock again and again, with contexts that are done after a random
// time.
func (s *crowd) work(t *testing.T, table *Table, path string) {
	for range stress.Rounds() {
		mode := Mode(1 + rand.N(2))
		ctx, cancel := context.WithTimeout(context.Background(), rand.N(3*time.Millisecond))
		h, err := table.Acquire(ctx, request(path), mode, false)
		cancel()
		if err != nil {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			continue
		}
		s.addHolder(t, h.entry.id, mode)
		if rand.N(10) == 0 {
			time.Sleep(time.Millisecond)
		}
		s.removeHolder(h.entry.id, mode, path)
		if _, err := h.Release(path); err != nil {
			t.Error(err)
		}
	}
}

func (s *crowd) addHolder(t *testing.T, id ID, mode Mode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.weights[id] += weight(mode)
	if n := s.weights[id]; n > exclusiveWeight || n == exclusiveWeight && mode == Shared {
		t.Errorf("the weight of all holders is %d", n)
	}
}

// removeHolder removes the file at times, too, as a holder may.
func (s *crowd) removeHolder(id ID, mode Mode, path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.weights[id] -= weight(mode)
	if rand.N(20) == 0 {
		s.unlink(path)
	}
}

func weight(mode Mode) int {
	if mode == Exclusive {
		return exclusiveWeight
	}
	return 1
}
