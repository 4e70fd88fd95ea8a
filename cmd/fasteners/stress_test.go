package main

import (
	"os"
	"strings"
	"testing"

	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/cli"
)

// A stressReport has what the tests look at of the document that stress --json
// prints.
type stressReport struct {
	Operations []struct {
		Name     string
		Acquired int
	}
	Acquisitions, Kills, Violations int
	Waits                           struct {
		Max int `json:"maxNanoseconds"`
	}
	FirstViolation *struct{ Holds []struct{ PID int } }
}

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
		if python() == "" {
			skipOrFail(t, "Python's fasteners")
		}
		o := stress.run(t, nil, "--json", "--peer", "python", "--goroutines", "2", "--duration", "5s")
		o.mustHaveStatus(t, 0)
		var r stressReport
		o.decode(t, &r)
		if python := r.Operations[len(r.Operations)-1]; python.Name != "python" || python.Acquired == 0 {
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
		o.mustHaveStatus(t, cli.ExitFailure)
		var r stressReport
		o.decode(t, &r)
		if v := r.FirstViolation; r.Violations == 0 || v == nil || len(v.Holds) != 2 || v.Holds[0].PID == 0 {
			t.Errorf("got %+v", r)
		}
	})
	t.Run("stuck", func(t *testing.T) {
		o := stress.run(t, []string{breakVar + "=stuck"}, "--kills", "0", "--hang-after", "1s")
		o.mustHaveStatus(t, cli.ExitFailure)
		if out := o.stdout.String(); !strings.Contains(out, "though nobody else wants it (the lock is free)") ||
			!strings.Contains(out, "stuckLock") {
			t.Errorf("there is no dump of the goroutine:\n%s", out)
		}
	})
	t.Run("usage", func(t *testing.T) {
		for _, args := range []string{"--processes 0", "--goroutines 0", "--kills -1", "--duration 0s", "--peer perl",
			"--peer python --removals"} {
			o := stress.run(t, nil, strings.Fields(args)...)
			if o.status != cli.ExitUsage {
				t.Errorf("%s: status %d", args, o.status)
			}
		}
	})
}
