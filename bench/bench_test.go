//go:build linux

package main

import (
	"bytes"
	"context"
	"math"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
)

// Workers are this test binary.
func TestMain(m *testing.M) {
	serveIfWorker()
	os.Exit(m.Run())
}

var tiny = plan{
	rounds: 2, slice: 30 * time.Millisecond,
	handoffs: 2, hold: 5 * time.Millisecond,
	waits: 1, wait: 50 * time.Millisecond,
	many: [2]int{50, 1000}, settle: 50 * time.Millisecond, serve: replyTimeout,
}

// TestRun runs all measures with all contenders that are installed, each for a moment. It does
// not judge times.
func TestRun(t *testing.T) {
	b := newBench(tiny, t.TempDir())
	for _, a := range b.absent {
		if os.Getenv("FASTENERS_TEST_STRICT") != "" {
			t.Error("without", a)
		}
		t.Log("without", a)
	}
	results := map[string]*result{}
	for _, m := range measures {
		r := m.take(b)
		results[m.name] = r
		if r.named(oursName).rounds == nil {
			t.Errorf("%s: no result for this library", m.name)
		}
		for _, e := range r.entrants {
			if e.err != nil {
				t.Errorf("%s: %s: %v", m.name, e.name, e.err)
			}
		}
	}

	t.Run("exclusion", func(t *testing.T) {
		for _, name := range []string{"goroutines", "shared", "processes"} {
			for _, e := range results[name].entrants {
				if v := worst(lost)(e); v != 0 && (e.guards || name != "shared") {
					t.Errorf("%s: %s lost %s of the updates", name, e.name, percent(v))
				}
				if median(rate)(e) < 1 {
					t.Errorf("%s: %s acquired nothing", name, e.name)
				}
			}
		}
	})
	t.Run("all served", func(t *testing.T) {
		for name, n := range map[string]int{"waiters12k": b.many[0], "waiters100k": b.many[1]} {
			for _, e := range results[name].entrants {
				if v := median(served)(e); e.kind != noLock && v != float64(n) {
					t.Errorf("%s: %s served %v of %d", name, e.name, v, n)
				}
			}
		}
	})
	t.Run("report", func(t *testing.T) {
		pictures, err := drawAll(b, results)
		if err != nil {
			t.Fatal(err)
		}
		text := report(b, results, pictures)
		for _, r := range results {
			if !strings.Contains(text, "\n## "+r.title+"\n") {
				t.Errorf("the report lacks %q", r.title)
			}
		}
		if len(pictures) != 3 {
			t.Errorf("%d pictures", len(pictures))
		}
		for _, p := range pictures {
			if !strings.Contains(text, "]("+p.file+")") {
				t.Errorf("the report does not show %s", p.file)
			}
			if n := len(p.svg); n > 60_000 || !bytes.Contains(p.svg, []byte(">"+oursName+"</text>")) {
				t.Errorf("%s has %d bytes, or no row of this library", p.file, n)
			}
		}
	})
}

// TestLost checks that the measures find out that a lock does not exclude. Otherwise the
// fastest contender would be one that does nothing.
func TestLost(t *testing.T) {
	open := &contender{open: func(string) (fasteners.Locker, error) { return noExclusion{}, nil }}
	w := &worker{contender: open, handle: noExclusion{}, path: t.TempDir() + "/lock"}
	for name, compete := range map[string]func() (pairs, counted int64){
		"goroutines": func() (int64, int64) {
			r := w.goroutines(request{N: 8, Shared: true, Seconds: 0.05})
			return r.Pairs, r.Pairs - r.Lost
		},
		"count": func() (pairs, counted int64) {
			if err := os.WriteFile(w.path+".count", make([]byte, 8), 0o666); err != nil {
				t.Fatal(err)
			}
			var a, b reply
			var both sync.WaitGroup
			both.Go(func() { a = w.count(request{Seconds: 0.05}) })
			both.Go(func() { b = w.count(request{Seconds: 0.05}) })
			both.Wait()
			return a.Pairs + b.Pairs, mapCounter(w.path + ".count").Load()
		},
	} {
		t.Run(name, func(t *testing.T) {
			for { // until an update is lost, which a busy machine may take long for
				if pairs, counted := compete(); counted < pairs {
					return
				}
				t.Log("no update was lost without a lock")
			}
		})
	}
}

// A noExclusion is a lock that does not exclude anything.
type noExclusion struct{}

func (noExclusion) Acquire(context.Context) error { return nil }
func (noExclusion) Release() error                { return nil }

// TestAbsent checks that a report names the Python libraries that are not installed.
func TestAbsent(t *testing.T) {
	defer func(p string) { python = p }(python)
	python = "/nonexistent/python3"
	b := newBench(tiny, t.TempDir())
	text := report(b, nil, nil)
	for _, c := range contenders {
		if c.kind == pythonLibrary && !strings.Contains(text, "Without "+c.name+" (") {
			t.Errorf("not named as absent: %s", c.name)
		}
	}
}

// TestCrash checks that a process that crashes is a result, with its cause.
func TestCrash(t *testing.T) {
	b := newBench(tiny, t.TempDir())
	b.contenders = []*contender{{name: "nobody"}}
	r := b.newResult(isFastFileLock, 1)
	defer r.stop()
	interleave(r.entrants, 2, requests(request{Do: "pairs"}))
	r.column("time", median(perPair), duration)
	var text strings.Builder
	r.write(&text)
	if want := "| nobody | crashed: no such contender: nobody |"; !strings.Contains(text.String(), want) {
		t.Errorf("%s lacks %s", &text, want)
	}
}

func TestValues(t *testing.T) {
	round := []reply{
		{Pairs: 100, Nanos: 1e6, CPU: 3e5, Longest: 7, Lost: 4},
		{Pairs: 300, Nanos: 2e6, CPU: 5e5, Longest: 9},
	}
	for i, c := range []struct{ got, want float64 }{
		{rate(round), 100e3 + 150e3},
		{cpuPerPair(round), 2000},
		{leastShare(round), 0.5},
		{longestWait(round), 9},
		{lost(round), 0.01},
		{ofReply(1, load)(round), 0.25},
		{quantile([]float64{3, 1, 2}, 0.5), 2},
		{quantile([]float64{1, 2}, 0.75), 1.75},
		{quantile([]float64{1, 2}, 1), 2},
	} {
		if math.Abs(c.got-c.want) > 1e-9 {
			t.Errorf("%d: %v, want %v", i, c.got, c.want)
		}
	}
	if v := quantile(nil, 0.5); !math.IsNaN(v) {
		t.Errorf("quantile of nothing is %v", v)
	}
}

func TestFormat(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{duration(999), "999 ns"},
		{duration(999.6), "1.00 µs"},
		{duration(99_960), "100 µs"},
		{duration(2e13), "20000 s"},
		{duration(math.Inf(1)), "not in time"},
		{perSecond(162_345), "162 k/s"},
		{percent(0), "0 %"},
		{percent(0.00001), "< 0.01 %"},
		{percent(0.0123), "1.23 %"},
		{fourDecimals(2.0003), "2.0003"},
		{plural(1, "goroutine"), "1 goroutine"},
		{plural(12_000, "goroutine"), "12,000 goroutines"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}
