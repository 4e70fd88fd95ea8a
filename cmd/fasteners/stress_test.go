package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// A stressCommand runs stress for two seconds, or as the arguments say.
type stressCommand string

func (program stressCommand) run(t *testing.T, env []string, args ...string) *outcome {
	t.Helper()
	dir := t.TempDir()
	o := runForTest(t, string(program), env, append([]string{"stress", "--duration", "2s", dir}, args...)...)
	mustBeEmpty(t, dir)
	return o
}

func TestStress(t *testing.T) {
	stress := stressCommand(sharedProgram())

	t.Run("sound", func(t *testing.T) {
		o := stress.run(t, nil, "--json", "--kills", "5")
		o.mustHaveStatus(t, 0)
		var r stressReport
		o.decode(t, &r)
		if r.Acquisitions == 0 || r.Kills == 0 || r.Violations != 0 || r.Waits.Max == 0 {
			t.Errorf("got %+v", r)
		}
	})
	t.Run("text", func(t *testing.T) {
		o := stress.run(t, nil, "--seed", "17")
		o.mustHaveStatus(t, 0)
		if out := o.stdout.String(); !strings.Contains(out, "\nseed          17\n") ||
			!strings.Contains(out, "\nviolations    0\n") {
			t.Errorf("got\n%s", out)
		}
	})
	t.Run("python", func(t *testing.T) {
		if _, err := findPython(); err != nil {
			skipOrFail(t, "Python's fasteners")
		}
		o := stress.run(t, nil, "--json", "--peer", "python", "--goroutines", "2", "--duration", "5s")
		o.mustHaveStatus(t, 0)
		var r stressReport
		o.decode(t, &r)
		if python := r.Operations[operations]; python.Name != "python" || python.Acquired == 0 {
			t.Errorf("got %+v", r)
		}
	})
	t.Run("keep", func(t *testing.T) {
		dir := t.TempDir()
		runForTest(t, string(stress), nil, "stress", "--duration", "1s", "--keep", dir).mustHaveStatus(t, 0)
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
			t.Errorf("%v, %v are left", entries, err)
		}
	})
}

func TestStressFails(t *testing.T) {
	stress := stressCommand(sharedProgram())

	t.Run("no locks", func(t *testing.T) {
		o := stress.run(t, []string{breakVar + "=off"}, "--json")
		o.mustHaveStatus(t, exitFailure)
		var r stressReport
		o.decode(t, &r)
		if v := r.First; r.Violations == 0 || v == nil || len(v.Holds) != 2 || v.Holds[0].PID == 0 {
			t.Errorf("got %+v", r)
		}
	})
	t.Run("stuck", func(t *testing.T) {
		o := stress.run(t, []string{breakVar + "=stuck"}, "--kills", "0", "--hang-after", "1s")
		o.mustHaveStatus(t, exitFailure)
		if out := o.stdout.String(); !strings.Contains(out, "though nobody else wants it (the lock is free)") ||
			!strings.Contains(out, "stuckLock") {
			t.Errorf("there is no dump of the goroutine:\n%s", out)
		}
	})
	t.Run("usage", func(t *testing.T) {
		for _, args := range []string{"--processes 0", "--goroutines 0", "--kills -1", "--duration 0s", "--peer perl",
			"--peer python --removals"} {
			o := stress.run(t, nil, strings.Fields(args)...)
			if o.status != exitUsage {
				t.Errorf("%s: status %d", args, o.status)
			}
		}
	})
}

func TestStressSeed(t *testing.T) {
	b := newTestBoard(t, 1, 2)
	choices := func(seed, process uint64, number int) []int {
		w := &stressWorker{order: stressOrder{Seed: seed, Process: process, Removals: true}, board: b}
		g := w.newGoroutine(number)
		var ops []int
		for range 1000 {
			op, _, _ := g.choose()
			ops = append(ops, op)
		}
		return ops
	}
	first := choices(1, 1, 0)
	if !slices.Equal(first, choices(1, 1, 0)) {
		t.Error("the same seed leads to other operations")
	}
	for op, name := range operationNames {
		if !slices.Contains(first, op) {
			t.Errorf("of %d operations none is %s", len(first), name)
		}
	}
	for _, other := range [][]int{choices(2, 1, 0), choices(1, 2, 0), choices(1, 1, 1)} {
		if slices.Equal(first, other) {
			t.Error("another seed, process or goroutine chooses the same operations")
		}
	}
}

func TestQuantile(t *testing.T) {
	var waits [waitBuckets]uint64
	if got := quantile(&waits, 0.5); got != 0 {
		t.Errorf("got %v of no waits", got)
	}
	waits[waitBucket(1000)], waits[waitBucket(5000)] = 98, 2
	if got, want := quantile(&waits, 0.5), waitOf(waitBucket(1000)); got != want {
		t.Errorf("p50 is %v, want %v", got, want)
	}
	if got, want := quantile(&waits, 0.99), waitOf(waitBucket(5000)); got != want {
		t.Errorf("p99 is %v, want %v", got, want)
	}
}
