package main

import (
	"fmt"
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

// until runs stress for two seconds, then four and so on, until a report is ok:
// what is left to chance may need longer on a busy machine.
func (program stressCommand) until(t *testing.T, ok func(stressReport) bool, status int, env []string, args ...string) stressReport {
	t.Helper()
	for seconds := 2; ; seconds *= 2 {
		o := program.run(t, env, append(args, "--json", "--duration", fmt.Sprintf("%ds", seconds))...)
		var r stressReport
		o.decode(t, &r)
		if ok(r) {
			o.mustHaveStatus(t, status)
			return r
		}
		t.Logf("not yet: %+v", r)
	}
}

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
		r := stress.until(t, func(r stressReport) bool { return r.Kills > 0 || r.Violations > 0 }, 0, nil, "--kills", "5")
		if r.Acquisitions == 0 || r.Violations != 0 || r.Waits.Max == 0 {
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
		stress.until(t, func(r stressReport) bool {
			python := r.Operations[len(r.Operations)-1]
			return python.Name == "python" && python.Acquired > 0
		}, 0, nil, "--peer", "python", "--goroutines", "2")
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
		r := stress.until(t, func(r stressReport) bool { return r.Violations > 0 }, cli.ExitFailure,
			[]string{breakVar + "=off"})
		if v := r.FirstViolation; v == nil || len(v.Holds) != 2 || v.Holds[0].PID == 0 {
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
