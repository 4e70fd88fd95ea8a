// Package stress puts load on a lock, and looks whether two hold it at the same
// time.
package stress

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/spf13/cobra"

	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/cli"
	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/file"
	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/worker"
)

type options struct {
	duration   time.Duration
	processes  int
	goroutines int
	killRate   float64 // per second
	removals   bool
	seed       uint64
	peer       string
	asJSON     bool
	keep       bool
	hangAfter  time.Duration
}

// NewCommand returns the command stress.
func NewCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "stress DIR",
		Short: "Put load on a lock in a directory, and look for two holders",
		Long: `Stress lets many goroutines of several processes acquire and release one lock,
in a new directory in DIR, in all ways that there are, and kills processes
meanwhile. Each holder looks whether another one holds the lock that it
excludes. The first violation ends the run.

The exit status is 0 if the lock was acquired and there was no violation, 1
otherwise, and 130 after Ctrl-C, which ends the run early.`,
		Example: `  fasteners stress --duration 10m /mnt/share
  fasteners stress --processes 2 --kills 0 --peer python .`,
		Args: cli.Args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if worker.Is() {
				return generate()
			}
			if (o.peer != "" || file.RemoveAfterRelease) && !cmd.Flags().Changed("removals") {
				o.removals = false
			}
			if err := o.validate(); err != nil {
				return err
			}
			return run(cmd, args[0], o)
		},
	}
	f := cmd.Flags()
	f.DurationVar(&o.duration, "duration", 10*time.Second, "how long to go on")
	f.IntVar(&o.processes, "processes", 4, "`number` of processes")
	f.IntVar(&o.goroutines, "goroutines", 8, "`number` of goroutines of each process")
	f.Float64Var(&o.killRate, "kills", 2, "`number` of processes to kill per second")
	f.BoolVar(&o.removals, "removals", true, "holders remove the lock file before a release")
	f.Uint64Var(&o.seed, "seed", 0, "`number` that determines what the goroutines do (default random)")
	f.StringVar(&o.peer, "peer", "", "also start processes of another `library`: python (fasteners)")
	f.BoolVar(&o.asJSON, "json", false, "print one JSON document")
	f.BoolVar(&o.keep, "keep", false, "do not remove the directory at the end")
	f.DurationVar(&o.hangAfter, "hang-after", 20*time.Second, "look closer at a wait after this time")
	_ = f.MarkHidden("hang-after") // for tests
	return cmd
}

const (
	maxProcesses  = 1000
	maxGoroutines = 10000
	maxKills      = 100
	pythonPeers   = 2
)

func (o *options) validate() error {
	switch {
	case o.duration <= 0:
		return cli.UsageError("--duration must be positive")
	case o.processes < 1 || o.processes > maxProcesses:
		return cli.UsageError("--processes must be 1 to %d", maxProcesses)
	case o.goroutines < 1 || o.goroutines > maxGoroutines:
		return cli.UsageError("--goroutines must be 1 to %d", maxGoroutines)
	case !(o.killRate >= 0 && o.killRate <= maxKills):
		return cli.UsageError("--kills must be 0 to %d", maxKills)
	case o.peer != "" && o.peer != "python":
		return cli.UsageError("--peer knows only python, not %q", o.peer)
	case file.RemoveAfterRelease && o.removals:
		return cli.UsageError("--removals: a lock file cannot be removed by its holder on this system")
	case o.peer != "" && o.removals:
		return cli.UsageError("--peer python does not go with --removals: " +
			"Python's fasteners does not notice a removed file")
	}
	for o.seed == 0 {
		o.seed = uint64(rand.Uint32())
	}
	return nil
}

func run(cmd *cobra.Command, dir string, o options) (err error) {
	ctx, stop := cli.SignalContext()
	defer stop()
	s, err := newSupervisor(ctx, cmd.ErrOrStderr(), dir, o)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := s.close(); err == nil {
			err = closeErr
		}
	}()
	fs := file.SystemOf(s.crew.Dir)
	if err := s.startAll(); err != nil {
		return err
	}
	s.run()
	s.stop()
	r := s.report(dir, fs)
	if o.asJSON {
		err = cli.PrintJSON(cmd.OutOrStdout(), r)
	} else {
		r.print(cmd.OutOrStdout())
	}
	switch {
	case err != nil:
		return err
	case r.Violations > 0:
		return &cli.StatusError{Status: cli.ExitFailure}
	case ctx.Err() != nil:
		return cli.Interruption(ctx)
	case r.Acquisitions == 0:
		return &cli.StatusError{Status: cli.ExitFailure, Err: fmt.Errorf("the lock was never acquired")}
	}
	return nil
}
