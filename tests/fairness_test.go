//go:build unix || windows

package tests

import (
	"bufio"
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners/internal/stress"
)

// A loopProcess acquires and releases a lock in a loop, until it is told to finish.
type loopProcess struct{ *process }

// A loopResult counts the holds of a loopProcess, and sums up how long it waited for each.
type loopResult struct {
	holds              int
	mean, longest, p99 time.Duration
}

// startLoopProcess starts a process whose goroutines hold the lock for the given time and then
// rest.
func startLoopProcess(t testing.TB, path, variant string, goroutines int, hold, rest time.Duration) loopProcess {
	t.Helper()
	p := startHelper(t, loopHelper, path, variant, strconv.Itoa(goroutines), hold.String(), rest.String())
	p.expect("ready")
	return loopProcess{p}
}

// begin starts the loop, and returns when the process has acquired the lock.
func (p loopProcess) begin() {
	p.t.Helper()
	p.say("go")
	p.expect("held")
}

func (p loopProcess) finish() (r loopResult) {
	p.t.Helper()
	p.in.Close()
	var sum time.Duration
	if _, err := fmt.Sscan(p.line(), &r.holds, &sum, &r.longest, &r.p99); err != nil {
		p.t.Fatal(err)
	}
	if r.holds > 0 {
		r.mean = sum / time.Duration(r.holds)
	}
	p.process.finish()
	return r
}

var loopHelper = newHelper("loop", func(in *bufio.Reader, args []string) error {
	path, variant := args[0], args[1]
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
	fmt.Println("ready")
	if _, err := in.ReadString('\n'); err != nil {
		return err
	}
	ctx := cancelAtEOF(in)
	var g group
	var mu sync.Mutex
	var waits []time.Duration
	var first sync.Once
	for range goroutines {
		v := variantNamed(path, variant)
		g.Go(func() error {
			own, err := loop(ctx, v, rest, func() {
				first.Do(func() { fmt.Println("held") })
				time.Sleep(hold)
			})
			mu.Lock()
			waits = append(waits, own...)
			mu.Unlock()
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	printWaits(waits)
	return nil
})

// loop calls f under the lock until ctx is done. It returns how long it waited for each hold.
func loop(ctx context.Context, v variant, rest time.Duration, f func()) (waits []time.Duration, err error) {
	for ctx.Err() == nil {
		start := time.Now()
		if v.acquire(ctx) != nil {
			break
		}
		waits = append(waits, time.Since(start))
		f()
		if err := v.release(); err != nil {
			return nil, err
		}
		time.Sleep(rest)
	}
	return waits, nil
}

func printWaits(waits []time.Duration) {
	slices.Sort(waits)
	var sum, longest, p99 time.Duration
	for _, w := range waits {
		sum += w
	}
	if n := len(waits); n > 0 {
		longest, p99 = waits[n-1], waits[n*99/100]
	}
	fmt.Println(len(waits), int64(sum), int64(longest), int64(p99))
}

// Two processes whose goroutines acquire the lock all the time do not exclude each other forever,
// nor a third process. How often each of them holds the lock is measured by BenchmarkFairTo….
func TestBusyProcesses(t *testing.T) {
	path := lockPath(t)
	busy := []loopProcess{
		startLoopProcess(t, path, "write", 64, 0, 0),
		startLoopProcess(t, path, "exclusive", 64, 0, 0),
	}
	for _, p := range busy {
		p.begin()
	}
	for range stress.Rounds() {
		for _, v := range variants(path) {
			must(t, v.hold(cancelable(t)))
		}
	}
	for i, p := range busy {
		t.Logf("process %d: %d holds", i, p.finish().holds)
	}
}

// Readers make progress among writers that acquire the lock all the time, and a writer among
// readers. A process that polls does so only if the lock is free at times.
func TestReadersAndWritersMakeProgress(t *testing.T) {
	for _, test := range []struct{ busy, quiet string }{{"write", "read"}, {"read", "write"}} {
		t.Run(test.quiet+" among "+test.busy, func(t *testing.T) {
			path := lockPath(t)
			var busy []loopProcess
			for range 4 {
				busy = append(busy, startLoopProcess(t, path, test.busy, 1, time.Millisecond, restWherePolling))
			}
			for _, p := range busy {
				p.begin()
			}
			v := variantNamed(path, test.quiet)
			for range stress.Rounds() {
				for _, waitMode := range waitModes {
					must(t, v.hold(testContext(t, waitMode)))
				}
			}
			for _, p := range busy {
				p.finish()
			}
		})
	}
}

// The goroutines of one process overlap as readers, and they, or a writer of that process, give up
// waiting all the time. A writer of another process still acquires the lock.
func TestWriterAmongCanceledReaders(t *testing.T) {
	for _, canceled := range []string{"readers", "readers and a writer"} {
		t.Run(canceled, func(t *testing.T) {
			path := lockPath(t)
			p := startHelper(t, canceledReadersHelper, path, canceled)
			p.expect("held")
			for _, waitMode := range waitModes {
				must(t, writer(path).hold(testContext(t, waitMode)))
			}
			p.finish()
		})
	}
}

var canceledReadersHelper = newHelper("canceled readers", func(in *bufio.Reader, args []string) error {
	path, withWriter := args[0], args[1] != "readers"
	ctx := cancelAtEOF(in)
	var wg sync.WaitGroup
	var first sync.Once
	loop := func(v variant, wait, hold time.Duration) {
		for ctx.Err() == nil {
			ctx, cancel := context.WithTimeout(ctx, wait)
			if v.acquire(ctx) == nil {
				first.Do(func() { fmt.Println("held") })
				time.Sleep(hold)
				_ = v.release()
			}
			cancel()
		}
	}
	for range 32 {
		v := reader(path)
		wg.Go(func() { loop(v, 20*time.Millisecond, 50*time.Millisecond) })
	}
	if withWriter {
		v := writer(path)
		wg.Go(func() { loop(v, 10*time.Millisecond, 0) })
	}
	wg.Wait()
	return nil
})
