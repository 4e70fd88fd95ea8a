//go:build unix || windows

package fasteners_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
)

// These tell one state of this library from another, and from the bare system calls.

func BenchmarkUncontended(b *testing.B) {
	b.Run("reused", func(b *testing.B) {
		ctx := cancellable(b)
		l := fasteners.NewInterProcessLock(filepath.Join(b.TempDir(), "lock"))
		b.ReportAllocs()
		for b.Loop() {
			pair(b, ctx, l)
		}
	})
	b.Run("new", func(b *testing.B) {
		ctx := cancellable(b)
		path := filepath.Join(b.TempDir(), "lock")
		b.ReportAllocs()
		for b.Loop() {
			pair(b, ctx, fasteners.NewInterProcessLock(path))
		}
	})
	b.Run("bare", func(b *testing.B) {
		acquire, release := blockingLock(filepath.Join(b.TempDir(), "lock"))
		if acquire == nil {
			b.Skip("nothing to compare with")
		}
		for b.Loop() {
			must(b, acquire())
			must(b, release())
		}
	})
	b.Run("try", func(b *testing.B) {
		l := fasteners.NewInterProcessLock(filepath.Join(b.TempDir(), "lock"))
		b.ReportAllocs()
		for b.Loop() {
			if ok, err := l.TryAcquire(); err != nil || !ok {
				b.Fatal(ok, err)
			}
			if err := l.Release(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func pair(b *testing.B, ctx context.Context, l fasteners.Locker) {
	if err := l.Acquire(ctx); err != nil {
		b.Error(err)
		return
	}
	if err := l.Release(); err != nil {
		b.Error(err)
	}
}

// Eight goroutines per processor all want the lock.
func BenchmarkGoroutines(b *testing.B) {
	b.Run("own", func(b *testing.B) {
		ctx := cancellable(b)
		path := filepath.Join(b.TempDir(), "lock")
		b.SetParallelism(8)
		b.RunParallel(func(pb *testing.PB) {
			l := fasteners.NewInterProcessLock(path)
			for pb.Next() {
				pair(b, ctx, l)
			}
		})
	})
	b.Run("shared", func(b *testing.B) {
		ctx := cancellable(b)
		l := fasteners.NewInterProcessLock(filepath.Join(b.TempDir(), "lock"))
		b.SetParallelism(8)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				pair(b, ctx, l)
			}
		})
	})
}

// Of so many goroutines' acquires, one is a writer's.
func BenchmarkReadMostly(b *testing.B) {
	for _, every := range []int{10, 100, 1000} {
		b.Run(fmt.Sprintf("write1in%d", every), func(b *testing.B) {
			ctx := cancellable(b)
			l := fasteners.NewInterProcessReaderWriterLock(filepath.Join(b.TempDir(), "lock"))
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				for i := 1; pb.Next(); i++ {
					acquire, release := l.AcquireReadLock, l.ReleaseReadLock
					if i%every == 0 {
						acquire, release = l.AcquireWriteLock, l.ReleaseWriteLock
					}
					if err := acquire(ctx); err != nil {
						b.Error(err)
						return
					}
					if err := release(); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// A process with many lock files is to pay for those that it uses, not for the others.
func BenchmarkManyFiles(b *testing.B) {
	const files = 10_000
	locks := func(b *testing.B) []*fasteners.InterProcessLock {
		dir := b.TempDir()
		ls := make([]*fasteners.InterProcessLock, files)
		for i := range ls {
			ls[i] = fasteners.NewInterProcessLock(filepath.Join(dir, fmt.Sprint(i)))
		}
		return ls
	}

	b.Run("inTurn", func(b *testing.B) {
		ctx := cancellable(b)
		ls := locks(b)
		for _, l := range ls {
			pair(b, ctx, l) // makes the file
		}
		i := 0
		for b.Loop() {
			pair(b, ctx, ls[i%files])
			i++
		}
	})
	b.Run("othersHeld", func(b *testing.B) {
		ctx := cancellable(b)
		ls := locks(b)
		for i, l := range ls[1:] {
			err := l.Acquire(ctx)
			defer l.Release()
			if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
				b.Skipf("only %d files can be open", i)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		for b.Loop() {
			pair(b, ctx, ls[0])
		}
	})
}

// What it costs to hand the lock on while so many goroutines wait, and in bytes, for one
// more to wait.
func BenchmarkWaiters(b *testing.B) {
	for _, n := range []int{1, 100, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			ctx, cancel := context.WithCancel(background)
			path := filepath.Join(b.TempDir(), "lock")
			held := fasteners.NewInterProcessLock(path)
			if err := held.Acquire(ctx); err != nil {
				b.Fatal(err)
			}
			before := inUse()

			var coming, handed atomic.Int64
			var gone sync.WaitGroup
			done := make(chan struct{})
			for range n {
				l := fasteners.NewInterProcessLock(path)
				gone.Go(func() {
					coming.Add(1)
					for l.Acquire(ctx) == nil {
						k := handed.Add(1)
						if err := l.Release(); err != nil {
							b.Error(err)
						}
						if k == int64(b.N) {
							close(done)
						}
					}
				})
			}
			for coming.Load() < int64(n) {
				time.Sleep(time.Millisecond)
			}
			// The last ones are about to. If they come later, that is no error.
			time.Sleep(10 * time.Millisecond)
			memory := inUse() - before

			b.ResetTimer()
			if err := held.Release(); err != nil {
				b.Fatal(err)
			}
			<-done
			b.StopTimer()
			if n > 1 { // else it is that of anything but the waiter
				b.ReportMetric(float64(memory)/float64(n), "bytes/waiter")
			}
			cancel()
			gone.Wait()
		})
	}
}

// inUse returns how much memory goroutines and what they refer to take.
func inUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
