//go:build unix || windows

package fasteners_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
)

// How fair the lock is, in figures: go test -run '^$' -bench Fair -benchtime 1x

func init() {
	// loop has goroutines that lock and unlock until the input ends, with the given times of
	// holding and of rest. It says when one of them holds the lock for the first time, and in
	// the end how often they held it, and the sum and the longest of their waits.
	helpers["loop"] = func(in *bufio.Reader, args []string) error {
		path, side := args[0], args[1]
		goroutines, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		hold, err := time.ParseDuration(args[3])
		if err != nil {
			return err
		}
		rest, err := time.ParseDuration(args[4])
		if err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(background)
		defer cancel()
		fmt.Println("ready")
		if _, err := in.ReadString('\n'); err != nil {
			return err
		}
		go func() { io.Copy(io.Discard, in); cancel() }()
		var wg sync.WaitGroup
		var mu sync.Mutex
		var waits []time.Duration
		var first sync.Once
		for range goroutines {
			wg.Go(func() {
				s, err := sideNamed(path, side)
				if err != nil {
					panic(err)
				}
				var mine []time.Duration
				for ctx.Err() == nil {
					start := time.Now()
					if s.acquire(ctx) != nil {
						break
					}
					mine = append(mine, time.Since(start))
					first.Do(func() { fmt.Println("held") })
					pause(hold)
					if err := s.release(); err != nil {
						panic(err)
					}
					pause(rest)
				}
				mu.Lock()
				waits = append(waits, mine...)
				mu.Unlock()
			})
		}
		wg.Wait()
		slices.Sort(waits)
		var sum, longest, p99 time.Duration
		for _, w := range waits {
			sum += w
		}
		if n := len(waits); n > 0 {
			longest, p99 = waits[n-1], waits[n*99/100]
		}
		fmt.Println(len(waits), int64(sum), int64(longest), int64(p99))
		return nil
	}
}

func pause(d time.Duration) {
	if d > 0 {
		time.Sleep(d)
	}
}

// A looper is a process that runs loop.
type looper struct{ *process }

type loopResult struct {
	holds              int
	mean, longest, p99 time.Duration
}

func startLoop(t testing.TB, path, side string, goroutines int, hold, rest time.Duration) looper {
	t.Helper()
	p := startHelper(t, "loop", path, side, strconv.Itoa(goroutines), hold.String(), rest.String())
	p.expect("ready")
	return looper{p}
}

// begin lets it loop, and returns when it has held the lock.
func (l looper) begin() {
	l.t.Helper()
	l.say("go")
	l.expect("held")
}

func (l looper) finish() (r loopResult) {
	l.t.Helper()
	l.in.Close()
	var sum time.Duration
	if _, err := fmt.Sscan(l.line(), &r.holds, &sum, &r.longest, &r.p99); err != nil {
		l.t.Fatal(err)
	}
	if r.holds > 0 {
		r.mean = sum / time.Duration(r.holds)
	}
	l.process.finish()
	return r
}

// Processes that lock all the time, each with many goroutines, do not shut each other out; and
// one that wants the lock now and then gets it. How often is for the benchmarks below.
func TestBusyProcesses(t *testing.T) {
	path := lockPath(t)
	busy := []looper{
		startLoop(t, path, "write", 64, 0, 0),
		startLoop(t, path, "exclusive", 64, 0, 0),
	}
	for _, l := range busy {
		l.begin()
	}
	for i := range 30 {
		s := sides(path)[i%3]
		must(t, s.acquire(cancellable(t)))
		s.mustRelease(t)
	}
	for i, l := range busy {
		t.Logf("process %d: %d holds", i, l.finish().holds)
	}
}

// Readers get in among writers that lock all the time, and a writer among readers. Where processes poll
// it takes a moment at which the lock is free.
func TestReadersAndWritersGetIn(t *testing.T) {
	for _, test := range []struct{ busy, quiet string }{{"write", "read"}, {"read", "write"}} {
		t.Run(test.quiet+" among "+test.busy, func(t *testing.T) {
			path := lockPath(t)
			var busy []looper
			for range 4 {
				busy = append(busy, startLoop(t, path, test.busy, 1, time.Millisecond, restWherePolling))
			}
			for _, l := range busy {
				l.begin()
			}
			s, err := sideNamed(path, test.quiet)
			must(t, err)
			for i := range 20 {
				ctx := cancellable(t)
				if i%2 == 0 {
					ctx = background
				}
				must(t, s.acquire(ctx))
				s.mustRelease(t)
			}
			for _, l := range busy {
				l.finish()
			}
		})
	}
}

// Readers of one process overlap all the time, and give up waiting all the time, or a writer of it does.
// A writer of another process gets in.
func TestWriterAmongReadersThatGiveUp(t *testing.T) {
	for _, fickle := range []string{"readers", "readers and a writer"} {
		t.Run(fickle, func(t *testing.T) {
			path := lockPath(t)
			p := startHelper(t, "give up reading", path, fickle)
			p.expect("held")
			for _, ctx := range []context.Context{background, cancellable(t)} {
				s := sides(path)[2]
				must(t, s.acquire(ctx))
				s.mustRelease(t)
			}
			p.finish()
		})
	}
}

func init() {
	helpers["give up reading"] = func(in *bufio.Reader, args []string) error {
		ctx, cancel := context.WithCancel(background)
		go func() { io.Copy(io.Discard, in); cancel() }()
		var wg sync.WaitGroup
		var first sync.Once
		loop := func(mode int, wait, hold time.Duration) {
			s := sides(args[0])[mode]
			wg.Go(func() {
				for ctx.Err() == nil {
					ctx, cancel := context.WithTimeout(ctx, wait)
					if s.acquire(ctx) == nil {
						first.Do(func() { fmt.Println("held") })
						time.Sleep(hold)
						_ = s.release()
					}
					cancel()
				}
			})
		}
		for range 32 {
			loop(1, 20*time.Millisecond, 50*time.Millisecond)
		}
		if args[1] != "readers" {
			loop(2, 10*time.Millisecond, 0)
		}
		wg.Wait()
		return nil
	}
}

// A writer among eight processes that read for 5 ms and rest for less than 1 ms.
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
			var readers []looper
			for range 8 {
				readers = append(readers, startLoop(b, path, "read", 1, 5*time.Millisecond, 500*time.Microsecond))
			}
			for _, l := range readers {
				l.begin()
			}
			w := sides(path, test.opts...)[2]
			for b.Loop() {
				var waits []time.Duration
				for range 20 {
					start := time.Now()
					ctx, cancel := context.WithTimeout(background, 10*time.Second)
					_ = w.acquire(ctx)
					waits = append(waits, time.Since(start))
					cancel()
					_ = w.release()
					time.Sleep(20 * time.Millisecond) // the readers come back
				}
				slices.Sort(waits)
				b.ReportMetric(ms(waits[len(waits)/2]), "ms-median")
				b.ReportMetric(ms(waits[len(waits)-1]), "ms-max")
			}
			for _, l := range readers {
				l.finish()
			}
		})
	}
}

// A reader among four writers in a tight loop.
func BenchmarkFairToReader(b *testing.B) {
	path := lockPath(b)
	var writers []looper
	for range 4 {
		writers = append(writers, startLoop(b, path, "write", 1, 0, 0))
	}
	for _, l := range writers {
		l.begin()
	}
	r := sides(path)[1]
	for b.Loop() {
		var waits []time.Duration
		for range 500 {
			start := time.Now()
			must(b, r.acquire(cancellable(b)))
			waits = append(waits, time.Since(start))
			r.mustRelease(b)
			time.Sleep(time.Millisecond)
		}
		slices.Sort(waits)
		b.ReportMetric(ms(waits[len(waits)/2]), "ms-median")
		b.ReportMetric(ms(waits[len(waits)*99/100]), "ms-p99")
		b.ReportMetric(ms(waits[len(waits)-1]), "ms-max")
	}
	for _, l := range writers {
		l.finish()
	}
}

// Two processes with 64 goroutines each, in a tight loop.
func BenchmarkFairToBusyProcesses(b *testing.B) {
	for b.Loop() {
		path := lockPath(b)
		var busy []looper
		for range 2 {
			busy = append(busy, startLoop(b, path, "write", 64, 0, 0))
		}
		for _, l := range busy {
			l.begin()
		}
		stalled := stall(10 * time.Second)
		x, y := busy[0].finish(), busy[1].finish()
		b.ReportMetric(100*float64(x.holds)/float64(x.holds+y.holds), "%-first")
		b.ReportMetric(float64(x.holds+y.holds)/10, "holds/s")
		mean := (x.mean + y.mean) / 2
		b.ReportMetric(float64(max(x.longest, y.longest))/float64(mean), "longest/mean")
		b.ReportMetric(float64(stalled)/float64(mean), "stall/mean")
	}
}

// stall lets d pass, and returns for how long this process, which has next to nothing to do, could
// not run when it wanted to. No lock makes up for that.
func stall(d time.Duration) (longest time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		start := time.Now()
		time.Sleep(time.Millisecond)
		longest = max(longest, time.Since(start)-time.Millisecond)
	}
	return longest
}

// One process with 64 goroutines in a tight loop, another one with a single goroutine that
// wants the lock every 100 ms.
func BenchmarkFairToQuietProcess(b *testing.B) {
	for b.Loop() {
		path := lockPath(b)
		busy := startLoop(b, path, "write", 64, 0, 0)
		quiet := startLoop(b, path, "write", 1, 0, 100*time.Millisecond)
		busy.begin()
		quiet.begin()
		time.Sleep(20 * time.Second)
		r := quiet.finish()
		busy.finish()
		b.ReportMetric(ms(r.mean), "ms-mean")
		b.ReportMetric(ms(r.p99), "ms-p99")
		b.ReportMetric(ms(r.longest), "ms-max")
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Two hundred processes wait with a deadline; each holds the lock once, for 1 ms.
func BenchmarkFairToManyProcesses(b *testing.B) {
	for _, way := range waysOfProcesses {
		b.Run(way, func(b *testing.B) {
			for b.Loop() {
				path := lockPath(b)
				holder := startHolder(b, path, "write")
				var procs []*process
				for range 200 {
					p := startHelper(b, "once", path, way)
					procs = append(procs, p)
				}
				for _, p := range procs {
					p.expect("waiting")
				}
				time.Sleep(200 * time.Millisecond) // for the last of them
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
				b.ReportMetric(ms(time.Since(start)), "ms-total")
				b.ReportMetric(float64(served.Load()), "served")
				for _, p := range procs {
					p.kill()
				}
			}
		})
	}
}

func init() {
	helpers["once"] = func(_ *bufio.Reader, args []string) error {
		path, way := args[0], args[1]
		acquire, release := blockingLock(path)
		if way == "ours" {
			l := fasteners.NewInterProcessLock(path)
			ctx, cancel := context.WithTimeout(background, time.Minute)
			defer cancel()
			acquire, release = func() error { return l.Acquire(ctx) }, l.Release
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
	}
}
