package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
)

type stressOptions struct {
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

func newStressCommand() *cobra.Command {
	var o stressOptions
	cmd := &cobra.Command{
		Use:   "stress DIR",
		Short: "Put load on a lock in a directory, and look for two holders",
		Long: `Stress lets many goroutines of several processes acquire and release one lock, in a new directory
in DIR, in all ways that there are, and kills processes meanwhile. Each holder looks whether
another one holds the lock that it excludes. The first violation ends the run.

The exit status is 0 if the lock was acquired and there was no violation, 1 otherwise, and 130
after Ctrl-C, which ends the run early.`,
		Example: `  fasteners stress --duration 10m /mnt/share
  fasteners stress --processes 2 --kills 0 --peer python .`,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if isWorker() {
				return runStressWorker()
			}
			if (o.peer != "" || removeAfterRelease) && !cmd.Flags().Changed("removals") {
				o.removals = false
			}
			if err := o.validate(); err != nil {
				return err
			}
			return runStress(cmd, args[0], o)
		},
	}
	f := cmd.Flags()
	f.DurationVar(&o.duration, "duration", 10*time.Second, "how long to go on")
	f.IntVar(&o.processes, "processes", 4, "`number` of processes")
	f.IntVar(&o.goroutines, "goroutines", 8, "`number` of goroutines of each process")
	f.Float64Var(&o.killRate, "kills", 2, "`number` of processes to kill per second")
	f.BoolVar(&o.removals, "removals", true, "let holders remove the lock file before they release the lock")
	f.Uint64Var(&o.seed, "seed", 0, "`number` that determines which operations the goroutines choose (default random)")
	f.StringVar(&o.peer, "peer", "", "also start processes of another `library`: python, for Python's fasteners")
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

func (o *stressOptions) validate() error {
	switch {
	case o.duration <= 0:
		return usageError("--duration must be positive")
	case o.processes < 1 || o.processes > maxProcesses:
		return usageError("--processes must be 1 to %d", maxProcesses)
	case o.goroutines < 1 || o.goroutines > maxGoroutines:
		return usageError("--goroutines must be 1 to %d", maxGoroutines)
	case !(o.killRate >= 0 && o.killRate <= maxKills):
		return usageError("--kills must be 0 to %d", maxKills)
	case o.peer != "" && o.peer != "python":
		return usageError("--peer knows only python, not %q", o.peer)
	case removeAfterRelease && o.removals:
		return usageError("--removals: a lock file cannot be removed by its holder on this system")
	case o.peer != "" && o.removals:
		return usageError("--peer python does not go with --removals: Python's fasteners does not notice a removed file")
	}
	for o.seed == 0 {
		o.seed = uint64(rand.Uint32())
	}
	return nil
}

// A stressRun is what the process that has started the workers knows. Only the goroutine that calls run
// uses it, except for found.
type stressRun struct {
	stressOptions
	ctx     context.Context
	dir     string
	lock    string
	board   *board
	path    string   // of the board
	python  []string // the command that starts a peer, or nil
	workers []*worker
	line    *progressLine
	start   time.Time
	elapsed time.Duration
	kills   int
	found   chan violation
	first   *violation
	hang    suspicion
	dumps   chan string
	chance  *rand.Rand
}

func runStress(cmd *cobra.Command, parent string, o stressOptions) (err error) {
	ctx, stop := contextOfSignals()
	defer stop()
	r := &stressRun{stressOptions: o, ctx: ctx, line: newProgressLine(cmd.ErrOrStderr()),
		found: make(chan violation, 1024), dumps: make(chan string, 16), chance: rand.New(rand.NewPCG(o.seed, 1<<63))}
	if o.peer != "" {
		if r.python, err = findPython(); err != nil {
			return &statusError{exitSystem, err}
		}
	}
	if r.dir, err = newWorkDir(parent, ".fasteners-stress-"); err != nil {
		return err
	}
	defer func() {
		if closeErr := r.close(); err == nil {
			err = closeErr
		}
	}()
	r.lock = filepath.Join(r.dir, lockName)
	fs := fileSystemOf(r.dir)
	if err := r.startAll(); err != nil {
		return err
	}
	r.run()
	r.stop()
	report := r.report(parent, fs)
	if o.asJSON {
		err = printJSON(cmd.OutOrStdout(), report)
	} else {
		report.print(cmd.OutOrStdout())
	}
	switch {
	case err != nil:
		return err
	case report.Violations > 0:
		return &statusError{exitFailure, nil}
	case ctx.Err() != nil:
		return interruption(ctx)
	case report.Acquisitions == 0:
		return &statusError{exitFailure, fmt.Errorf("the lock was never acquired")}
	}
	return nil
}

func (r *stressRun) peers() int {
	if r.python == nil {
		return 0
	}
	return pythonPeers
}

func (r *stressRun) startAll() (err error) {
	n := r.processes + r.peers()
	if r.board, r.path, err = createBoard(n, r.goroutines); err != nil {
		return err
	}
	r.start = time.Now()
	r.workers = make([]*worker, n)
	for i := range r.workers {
		if err := r.startOne(i); err != nil {
			return err
		}
	}
	return nil
}

// startOne starts the first or the next process of a worker.
func (r *stressRun) startOne(number int) error {
	r.board.admit(number)
	m := &r.board.marks[number]
	order := stressOrder{Lock: r.lock, Board: r.path, Workers: len(r.workers), Seats: r.goroutines, Number: number,
		Seed: r.seed, Process: m.incarnation.Load(), Removals: r.removals}
	var w *worker
	var err error
	if number < r.processes {
		w, err = startWorker("stress", r.dir)
	} else {
		order.Layout = r.board.layout(number)
		w, err = startPython(r.python)
	}
	if err != nil {
		return err
	}
	m.pid.Store(uint64(w.pid()))
	r.workers[number] = w
	go r.listen(w)
	if err := w.send(order); err != nil {
		return w.failure()
	}
	return nil
}

// listen passes the messages of a worker on. What does not fit is not needed: the board has the number of
// violations, and the first one ends the run.
func (r *stressRun) listen(w *worker) {
	for line := range w.messages {
		var m stressMessage
		if json.Unmarshal(line, &m) != nil {
			m.Violation = &violation{What: fmt.Sprintf("process %d has written %s", w.pid(), line)}
		}
		if m.Dump != "" {
			select {
			case r.dumps <- m.Dump:
			default:
			}
		}
		if m.Violation != nil {
			select {
			case r.found <- *m.Violation:
			default:
			}
		}
	}
}

// close ends what is left, and removes everything.
func (r *stressRun) close() error {
	for i, w := range r.workers {
		if w != nil {
			r.kill(i)
		}
	}
	if r.path != "" {
		_ = os.Remove(r.path)
	}
	if r.keep {
		fmt.Fprintf(r.line.out, "kept %s\n", r.dir)
		return nil
	}
	return os.RemoveAll(r.dir)
}

// kill kills a worker, and waits until it is gone. The board has to know first.
func (r *stressRun) kill(number int) {
	w := r.workers[number]
	r.board.condemn(number)
	_ = w.cmd.Process.Kill()
	<-w.exited
}
