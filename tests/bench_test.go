//go:build unix || windows

package tests

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
)

// These benchmarks compare versions of this package with each other and with bare system calls. The
// directory bench compares it with other packages.

// bareLock returns functions that acquire and release a lock by system calls alone, and wait in the
// kernel. It is nil where there are no such calls.
var bareLock func(path string) (acquire, release func() error)

func BenchmarkUncontended(b *testing.B) {
	b.Run("reused", func(b *testing.B) {
		ctx := cancelable(b)
		l := fasteners.NewInterProcessLock(lockPath(b))
		b.ReportAllocs()
		for b.Loop() {
			acquireAndRelease(b, ctx, l)
		}
	})
	b.Run("new", func(b *testing.B) {
		ctx := cancelable(b)
		path := lockPath(b)
		b.ReportAllocs()
		for b.Loop() {
			acquireAndRelease(b, ctx, fasteners.NewInterProcessLock(path))
		}
	})
	b.Run("bare", func(b *testing.B) {
		if bareLock == nil {
			b.Skip("nothing to compare with")
		}
		acquire, release := bareLock(lockPath(b))
		for b.Loop() {
			must(b, acquire())
			must(b, release())
		}
	})
	b.Run("try", func(b *testing.B) {
		l := fasteners.NewInterProcessLock(lockPath(b))
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

func acquireAndRelease(b *testing.B, ctx context.Context, l fasteners.Locker) {
	if err := l.Acquire(ctx); err != nil {
		b.Error(err)
		return
	}
	if err := l.Release(); err != nil {
		b.Error(err)
	}
}

// Eight goroutines per processor compete for the lock, each through its own handle or all through
// one.
func BenchmarkGoroutines(b *testing.B) {
	b.Run("own", func(b *testing.B) {
		ctx := cancelable(b)
		path := lockPath(b)
		b.SetParallelism(8)
		b.RunParallel(func(pb *testing.PB) {
			l := fasteners.NewInterProcessLock(path)
			for pb.Next() {
				acquireAndRelease(b, ctx, l)
			}
		})
	})
	b.Run("shared", func(b *testing.B) {
		ctx := cancelable(b)
		l := fasteners.NewInterProcessLock(lockPath(b))
		b.SetParallelism(8)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				acquireAndRelease(b, ctx, l)
			}
		})
	})
}

// One of ten to a thousand acquires is for writing, the others are for reading.
func BenchmarkReadMostly(b *testing.B) {
	for _, every := range []int{10, 100, 1000} {
		b.Run(fmt.Sprintf("write1in%d", every), func(b *testing.B) {
			ctx := cancelable(b)
			l := fasteners.NewInterProcessReaderWriterLock(lockPath(b))
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

// A process with many lock files should pay for those that it uses, not for the others.
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
		ctx := cancelable(b)
		ls := locks(b)
		for _, l := range ls {
			acquireAndRelease(b, ctx, l) // creates the file
		}
		i := 0
		for b.Loop() {
			acquireAndRelease(b, ctx, ls[i%files])
			i++
		}
	})
	b.Run("othersHeld", func(b *testing.B) {
		ctx := cancelable(b)
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
			acquireAndRelease(b, ctx, ls[0])
		}
	})
}

// The time to hand the lock on while many goroutines wait, and the memory that each of them needs.
func BenchmarkWaiters(b *testing.B) {
	for _, n := range []int{1, 100, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { benchmarkWaiters(b, n) })
	}
}

func benchmarkWaiters(b *testing.B, n int) {
	ctx, cancel := context.WithCancel(background)
	path := lockPath(b)
	holder := fasteners.NewInterProcessLock(path)
	if err := holder.Acquire(ctx); err != nil {
		b.Fatal(err)
	}
	before := memoryInUse()

	var started, holds atomic.Int64
	var ended sync.WaitGroup
	done := make(chan struct{})
	for range n {
		l := fasteners.NewInterProcessLock(path)
		ended.Go(func() {
			started.Add(1)
			for l.Acquire(ctx) == nil {
				k := holds.Add(1)
				if err := l.Release(); err != nil {
					b.Error(err)
				}
				if k == int64(b.N) {
					close(done)
				}
			}
		})
	}
	for started.Load() < int64(n) {
		time.Sleep(time.Millisecond)
	}
	// Some goroutines may not wait yet. If they come later, that does no harm.
	time.Sleep(10 * time.Millisecond)
	memory := memoryInUse() - before

	b.ResetTimer()
	if err := holder.Release(); err != nil {
		b.Fatal(err)
	}
	<-done
	b.StopTimer()
	if n > 1 { // otherwise most of the memory is not that of the waiter
		b.ReportMetric(float64(memory)/float64(n), "bytes/waiter")
	}
	cancel()
	ended.Wait()
}

// memoryInUse returns how much memory goroutines, and what they refer to, need.
func memoryInUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// The time from just before one process releases the lock, after it has held it for long, until
// another process holds it. The waiter's context can be canceled or not, it polls, or both
// processes use bare system calls.
func BenchmarkHandOff(b *testing.B) {
	for _, how := range []string{"cancelable", "background", "poll", "bare"} {
		b.Run(how, func(b *testing.B) {
			if how == "bare" && bareLock == nil {
				b.Skip("nothing to compare with")
			}
			path := lockPath(b)
			acquire, release := lockForHandOff(cancelable(b), path, how)
			p := startHelper(b, handOffHelper, path, how)
			var took []time.Duration
			for b.Loop() {
				must(b, acquire())
				p.say("acquire")
				p.expect("waiting")
				// The time is random because a waiter that polls does so at regular intervals.
				time.Sleep(50*time.Millisecond + rand.N(handOffPollInterval))
				from := monotonicClock()
				must(b, release())
				to, err := time.ParseDuration(p.line())
				must(b, err)
				took = append(took, to-from)
			}
			slices.Sort(took)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "µs-median")
			b.ReportMetric(float64(took[len(took)*9/10].Microseconds()), "µs-p90")
		})
	}
}

const handOffPollInterval = 10 * time.Millisecond

// lockForHandOff returns functions that acquire a lock, waiting in one of several ways, and release
// it.
func lockForHandOff(ctx context.Context, path, how string) (acquire, release func() error) {
	l := fasteners.NewInterProcessLock(path)
	switch how {
	case "bare":
		return bareLock(path)
	case "background":
		ctx = background
	case "poll":
		return func() error {
			for {
				ok, err := l.TryAcquire()
				if ok || err != nil {
					return err
				}
				time.Sleep(handOffPollInterval)
			}
		}, l.Release
	}
	return func() error { return l.Acquire(ctx) }, l.Release
}

var handOffHelper = newHelper("hand-off", func(in *bufio.Reader, args []string) error {
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	acquire, release := lockForHandOff(ctx, args[0], args[1])
	for {
		if _, err := in.ReadString('\n'); err != nil {
			return nil // the benchmark has ended
		}
		fmt.Println("waiting")
		if err := acquire(); err != nil {
			return err
		}
		now := monotonicClock()
		if err := release(); err != nil {
			return err
		}
		fmt.Println(now)
	}
})

// The processor time of a process whose goroutines wait for five seconds with a deadline.
func BenchmarkWaiting(b *testing.B) {
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			path := lockPath(b)
			startHolder(b, path, "write")
			for b.Loop() {
				p := startHelper(b, waitHelper, path, fmt.Sprint(n))
				cpu, err := time.ParseDuration(p.line())
				must(b, err)
				b.ReportMetric(milliseconds(cpu), "ms-cpu")
				p.finish()
			}
		})
	}
}

var waitHelper = newHelper("wait", func(_ *bufio.Reader, args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(background, 5*time.Second)
	defer cancel()
	before := cpuTime()
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() { _ = fasteners.NewInterProcessLock(args[0]).Acquire(ctx) })
	}
	wg.Wait()
	fmt.Println(cpuTime() - before)
	return nil
})

// The following benchmarks measure how fair the lock is:
//
//	go test -run '^$' -bench Fair -benchtime 1x ./tests

// A writer competes with eight processes that read for 5 ms and rest for less than 1 ms.
func BenchmarkFairToWriter(b *testing.B) {
	for _, test := range []struct {
		name string
		opts []fasteners.Option
	}{
		{"preferred", nil},
		{"reader preference", []fasteners.Option{fasteners.WithReaderPreference()}},
	} {
		b.Run(strings.ReplaceAll(test.name, " ", "-"), func(b *testing.B) {
			path := lockPath(b)
			var readers []loopProcess
			for range 8 {
				readers = append(readers, startLoopProcess(b, path, "read", 1, 5*time.Millisecond, 500*time.Microsecond))
			}
			for _, p := range readers {
				p.begin()
			}
			w := writer(path, test.opts...)
			for b.Loop() {
				var waits []time.Duration
				for range 20 {
					start := time.Now()
					ctx, cancel := context.WithTimeout(background, 10*time.Second)
					_ = w.acquire(ctx)
					waits = append(waits, time.Since(start))
					cancel()
					_ = w.release()
					time.Sleep(20 * time.Millisecond) // the readers acquire the lock again
				}
				slices.Sort(waits)
				b.ReportMetric(milliseconds(waits[len(waits)/2]), "ms-median")
				b.ReportMetric(milliseconds(waits[len(waits)-1]), "ms-max")
			}
			for _, p := range readers {
				p.finish()
			}
		})
	}
}

// A reader competes with four processes that write in a tight loop.
func BenchmarkFairToReader(b *testing.B) {
	path := lockPath(b)
	var writers []loopProcess
	for range 4 {
		writers = append(writers, startLoopProcess(b, path, "write", 1, 0, 0))
	}
	for _, p := range writers {
		p.begin()
	}
	r := reader(path)
	for b.Loop() {
		var waits []time.Duration
		for range 500 {
			start := time.Now()
			must(b, r.acquire(cancelable(b)))
			waits = append(waits, time.Since(start))
			r.mustRelease(b)
			time.Sleep(time.Millisecond)
		}
		slices.Sort(waits)
		b.ReportMetric(milliseconds(waits[len(waits)/2]), "ms-median")
		b.ReportMetric(milliseconds(waits[len(waits)*99/100]), "ms-p99")
		b.ReportMetric(milliseconds(waits[len(waits)-1]), "ms-max")
	}
	for _, p := range writers {
		p.finish()
	}
}

// Two processes with 64 goroutines each compete in a tight loop.
func BenchmarkFairToBusyProcesses(b *testing.B) {
	for b.Loop() {
		path := lockPath(b)
		var busy []loopProcess
		for range 2 {
			busy = append(busy, startLoopProcess(b, path, "write", 64, 0, 0))
		}
		for _, p := range busy {
			p.begin()
		}
		stall := longestStall(10 * time.Second)
		x, y := busy[0].finish(), busy[1].finish()
		b.ReportMetric(100*float64(x.holds)/float64(x.holds+y.holds), "%-first")
		b.ReportMetric(float64(x.holds+y.holds)/10, "holds/s")
		mean := (x.mean + y.mean) / 2
		b.ReportMetric(float64(max(x.longest, y.longest))/float64(mean), "longest/mean")
		b.ReportMetric(float64(stall)/float64(mean), "stall/mean")
	}
}

// longestStall sleeps for d, and returns the longest time for which this process, which is idle
// otherwise, was not scheduled. No lock can make up for that.
func longestStall(d time.Duration) (longest time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		start := time.Now()
		time.Sleep(time.Millisecond)
		longest = max(longest, time.Since(start)-time.Millisecond)
	}
	return longest
}

// A process whose only goroutine acquires the lock every 100 ms competes with one that has 64
// goroutines in a tight loop.
func BenchmarkFairToQuietProcess(b *testing.B) {
	for b.Loop() {
		path := lockPath(b)
		busy := startLoopProcess(b, path, "write", 64, 0, 0)
		quiet := startLoopProcess(b, path, "write", 1, 0, 100*time.Millisecond)
		busy.begin()
		quiet.begin()
		time.Sleep(20 * time.Second)
		r := quiet.finish()
		busy.finish()
		b.ReportMetric(milliseconds(r.mean), "ms-mean")
		b.ReportMetric(milliseconds(r.p99), "ms-p99")
		b.ReportMetric(milliseconds(r.longest), "ms-max")
	}
}

// Two hundred processes wait with a deadline. Each holds the lock once, for 1 ms.
func BenchmarkFairToManyProcesses(b *testing.B) {
	for _, how := range []string{"ours", "bare"} {
		b.Run(how, func(b *testing.B) {
			if how == "bare" && bareLock == nil {
				b.Skip("nothing to compare with")
			}
			for b.Loop() {
				benchmarkManyProcesses(b, how)
			}
		})
	}
}

func benchmarkManyProcesses(b *testing.B, how string) {
	path := lockPath(b)
	holder := startHolder(b, path, "write")
	var procs []*process
	for range 200 {
		procs = append(procs, startHelper(b, holdOnceHelper, path, how))
	}
	for _, p := range procs {
		p.expect("waiting")
	}
	time.Sleep(200 * time.Millisecond) // the last ones may not wait yet
	start := time.Now()
	holder.release()
	var wg sync.WaitGroup
	var served atomic.Int32
	for _, p := range procs {
		wg.Go(func() {
			if s, err := p.out.ReadString('\n'); err == nil && s == "held\n" {
				served.Add(1)
			}
		})
	}
	wg.Wait()
	b.ReportMetric(milliseconds(time.Since(start)), "ms-total")
	b.ReportMetric(float64(served.Load()), "served")
	for _, p := range procs {
		p.kill()
	}
}

var holdOnceHelper = newHelper("hold once", func(_ *bufio.Reader, args []string) error {
	path, how := args[0], args[1]
	l := fasteners.NewInterProcessLock(path)
	ctx, cancel := context.WithTimeout(background, time.Minute)
	defer cancel()
	acquire, release := func() error { return l.Acquire(ctx) }, l.Release
	if how == "bare" {
		acquire, release = bareLock(path)
	}
	fmt.Println("waiting")
	if err := acquire(); err != nil {
		return err
	}
	time.Sleep(time.Millisecond)
	if err := release(); err != nil {
		return err
	}
	fmt.Println("held")
	return nil
})

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// BenchmarkWithLock measures what the context of the function costs, and a timeout and a notice
// that are not needed, beside a bare acquire and release.
func BenchmarkWithLock(b *testing.B) {
	nothing := func(context.Context) error { return nil }
	run := func(name string, call func(ctx context.Context, l *fasteners.InterProcessLock) error, opts ...fasteners.Option) {
		b.Run(name, func(b *testing.B) {
			l := fasteners.NewInterProcessLock(lockPath(b), opts...)
			ctx := cancelable(b)
			b.ReportAllocs()
			for b.Loop() {
				must(b, call(ctx, l))
			}
		})
	}
	run("bare", func(ctx context.Context, l *fasteners.InterProcessLock) error {
		if err := l.Acquire(ctx); err != nil {
			return err
		}
		return l.Release()
	})
	with := func(ctx context.Context, l *fasteners.InterProcessLock) error {
		return fasteners.WithLock(ctx, l, nothing)
	}
	run("with", with)
	run("options", with, fasteners.WithTimeout(time.Minute), fasteners.WithWaitNotice(time.Minute, func([]fasteners.Holder) {}))
	run("plain", func(ctx context.Context, l *fasteners.InterProcessLock) error {
		return fasteners.WithLock(ctx, plainLocker{l}, nothing)
	})
	run("watched", func(ctx context.Context, l *fasteners.InterProcessLock) error {
		return fasteners.WithLock(ctx, l, func(ctx context.Context) error { return ctx.Err() })
	})
}

// BenchmarkHolders measures the question who holds a lock that another process holds, and the error
// of a wait that tells, beside a try that tells nothing.
func BenchmarkHolders(b *testing.B) {
	path := lockPath(b)
	startHolder(b, path, "write")
	b.Run("Holders", func(b *testing.B) {
		l := fasteners.NewInterProcessLock(path)
		b.ReportAllocs()
		for b.Loop() {
			holders, err := l.Holders()
			must(b, err)
			if knowsHolders && len(holders) != 1 {
				b.Fatal(holders)
			}
		}
	})
	b.Run("TryAcquire", func(b *testing.B) {
		l := fasteners.NewInterProcessLock(path)
		for b.Loop() {
			if ok, err := l.TryAcquire(); ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
	for name, d := range map[string]time.Duration{"1ns": 1, "1ms": time.Millisecond} {
		b.Run("timeout of "+name, func(b *testing.B) {
			l := fasteners.NewInterProcessLock(path, fasteners.WithTimeout(d))
			for b.Loop() {
				if err := l.Acquire(background); !errors.As(err, new(*fasteners.HeldError)) {
					b.Fatal(err)
				}
			}
		})
	}
}
