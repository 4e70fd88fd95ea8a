package itest

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners/internal/enginetest/must"
	"github.com/go-fasteners/fasteners/postgres"
	"github.com/jackc/pgx/v5"
)

// BenchmarkAlone acquires and releases a lock that nobody else wants.
func BenchmarkAlone(b *testing.B) {
	s := commonServer(b)
	b.Run("tokens", func(b *testing.B) { benchmarkAlone(b, postgres.NewLock(newDB(b, s), b.Name())) })
	b.Run("no tokens", func(b *testing.B) {
		benchmarkAlone(b, postgres.NewLock(newDB(b, s, postgres.WithSequence("")), b.Name()))
	})
	b.Run("bare SQL", func(b *testing.B) {
		benchmarkAlone(b, bareLock{s.Connect(b), postgres.Key(b.Name())})
	})
}

func benchmarkAlone(b *testing.B, lock interface {
	Acquire(context.Context) error
	Release() error
}) {
	for b.Loop() {
		must.Succeed(b, lock.Acquire(background))
		must.Succeed(b, lock.Release())
	}
}

// A bareLock is a connection of one's own, and two statements: no lease, no token, no queue.
type bareLock struct {
	conn *pgx.Conn
	key  int64
}

func (l bareLock) Acquire(ctx context.Context) error {
	_, err := l.conn.Exec(ctx, `SELECT pg_advisory_lock($1)`, l.key)
	return err
}

func (l bareLock) Release() error {
	_, err := l.conn.Exec(background, `SELECT pg_advisory_unlock($1)`, l.key)
	return err
}

// BenchmarkHandOff measures from just before a release until another process has the lock, for
// which that has waited for a while.
func BenchmarkHandOff(b *testing.B) {
	s := commonServer(b)
	for _, wait := range []time.Duration{20 * time.Millisecond, 2 * time.Second} {
		b.Run(wait.String(), func(b *testing.B) {
			holder, waiter := postgres.NewLock(newDB(b, s), b.Name()), postgres.NewLock(newDB(b, s), b.Name())
			must.Succeed(b, waiter.Acquire(background)) // so that both have a connection
			must.Succeed(b, waiter.Release())
			must.Succeed(b, holder.Acquire(background))
			var took []time.Duration
			for range b.N {
				acquired := make(chan time.Time, 1)
				go func() {
					must.Succeed(b, waiter.Acquire(background))
					acquired <- time.Now()
				}()
				time.Sleep(wait)
				start := time.Now()
				must.Succeed(b, holder.Release())
				took = append(took, (<-acquired).Sub(start))
				holder, waiter = waiter, holder
			}
			must.Succeed(b, holder.Release())
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "µs-p50")
			b.ReportMetric(float64(took[len(took)*9/10].Microseconds()), "µs-p90")
		})
	}
}

// BenchmarkContended has eight goroutines that want the lock all the time, and tells how much
// less than its share the worst one gets.
func BenchmarkContended(b *testing.B) {
	s := commonServer(b)
	const n = 8
	for _, test := range []struct {
		name string
		own  bool
	}{{"one process", false}, {"eight processes", true}} {
		b.Run(test.name, func(b *testing.B) {
			db := newDB(b, s)
			var locks []*postgres.Lock
			for range n {
				if test.own {
					db = newDB(b, s)
				}
				locks = append(locks, postgres.NewLock(db, b.Name()))
				must.Succeed(b, locks[len(locks)-1].Acquire(background))
				must.Succeed(b, locks[len(locks)-1].Release())
			}
			b.ResetTimer()
			turns := 0
			counts := make([]int, n)
			var wg sync.WaitGroup
			for i, lock := range locks {
				wg.Go(func() {
					for more := true; more; {
						must.Succeed(b, lock.Acquire(background))
						if more = turns < b.N; more {
							turns++
							counts[i]++
						}
						must.Succeed(b, lock.Release())
					}
				})
			}
			wg.Wait()
			b.ReportMetric(100*float64(slices.Min(counts))/(float64(b.N)/n), "%-least")
			b.ReportMetric(100*float64(slices.Max(counts))/(float64(b.N)/n), "%-most")
		})
	}
}

// BenchmarkWaiters measures the memory of a thousand goroutines that wait for one lock.
func BenchmarkWaiters(b *testing.B) {
	s := commonServer(b)
	holder := postgres.NewLock(newDB(b, s), b.Name())
	must.Succeed(b, holder.Acquire(background))
	lock := postgres.NewLock(newDB(b, s), b.Name())
	const n = 1000
	for b.Loop() {
		ctx, cancel := context.WithCancel(background)
		before := memory()
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() { _ = lock.Acquire(ctx) })
		}
		awaitBlocked(b, n)
		b.ReportMetric(float64(memory()-before)/n, "B/waiter")
		cancel()
		wg.Wait()
	}
	must.Succeed(b, holder.Release())
}

func memory() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
