// Package run runs commands under locks, for fasteners run and in the way of
// flock(1).
package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"time"

	"github.com/spf13/cobra"

	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/cli"
)

// A job is what run and flock are told to do.
type job struct {
	program string   // the name for messages
	locks   []string // their paths
	fd      int      // the descriptor to lock instead, or -1
	file    *os.File // of fd, once it is needed
	shared  bool
	wait    time.Duration // the longest wait for all locks; 0 is not to wait, and forever is no limit

	command  []string // may be empty if fd is not -1
	script   string   // the command, for a shell, if command is empty
	close    bool     // the command does not inherit the locks
	noFork   bool     // the command replaces this process
	remove   bool     // remove the lock files at the end
	killHard time.Duration

	busyStatus  int
	skip        bool // a busy lock is no failure
	errorStatus func(error) int
	startStatus func(error) int
	quiet       bool
	verbose     io.Writer // or nil
	tookFormat  string    // how to tell of the locks that were acquired, and after how many seconds
	stderr      io.Writer
}

const forever = time.Duration(-1)

// NewCommand returns the command run.
func NewCommand() *cobra.Command {
	j := &job{
		program: "fasteners", fd: -1, wait: forever, busyStatus: cli.ExitBusy, stderr: os.Stderr,
		errorStatus: func(error) int { return cli.ExitSystem }, startStatus: shellStatus,
		tookFormat: "acquired %[2]s after %.6[1]f seconds",
	}
	var ifBusy string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "run [flags] LOCK [--] COMMAND [ARG...]",
		Short: "Run a command while holding a lock",
		Long: `Run acquires the lock on the file LOCK, runs the command, and exits with the
status of the command: 128 and the number of the signal if a signal has ended
it, 126 if it cannot be run, and 127 if it is not found. The file is created if
it does not exist. Use a file of its own, such as data.json.lock for data.json.

If the lock is held, run waits for it, and after a second tells for whom. If it
may not wait any longer, it does not run the command and exits with status 75,
or 0 with --if-busy=skip.

On Linux the command inherits the lock, so it is held until the command, and
whatever it has left running, have exited, even if run itself is killed. With
--close, and on other systems, it is released when the command exits. There, but
not with --close, the command is killed when run is killed, if the system can do
that: Linux and Windows can. With --remove, what the command has left running
loses the lock when run exits.

Signals to run are passed on to the command. Of the signals that run was started
to ignore, the command goes on to ignore only SIGHUP and SIGINT. If the lock
file is removed or replaced while the command runs, run says so; with
--kill-after, it ends the command.`,
		Example: `  fasteners run backup.lock -- tar -cf backup.tar data
  fasteners run --wait 30 --shared report.lock -- ./print-report
  fasteners run --if-busy=skip /run/lock/sync.lock -- ./sync # for cron
  exec 9>build.lock; fasteners run --fd 9                    # held by the shell`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := j.parse(cmd, args, ifBusy); err != nil {
				return err
			}
			if verbose {
				j.verbose = j.stderr
			}
			return j.run()
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false) // what follows LOCK belongs to the command
	f.BoolVarP(&j.shared, "shared", "s", false, "share the lock with other shared holders")
	f.BoolP("exclusive", "x", false, "hold the lock alone, which is the default")
	f.BoolP("nonblock", "n", false, "do not wait, like --if-busy=fail")
	f.VarP((*secondsFlag)(&j.wait), "wait", "w",
		"wait no longer than `DURATION` for all locks: 5, 0.5 or 2m30s")
	f.StringVar(&ifBusy, "if-busy", "wait", "do `WHAT` if it is held: wait, fail or skip")
	f.VarP((*statusFlag)(&j.busyStatus), "conflict-exit-code", "E",
		"exit with status `N` if the lock is held")
	f.StringVarP(&j.script, "command", "c", "", "run `STRING` in a shell")
	f.BoolVarP(&j.close, "close", "o", false, "do not let the command inherit the lock")
	f.BoolVarP(&j.noFork, "no-fork", "F", false, "let the command replace this process (Linux)")
	f.StringArrayVar(&j.locks, "lock", nil,
		"lock `FILE` instead of LOCK; several in one order for all")
	f.IntVar(&j.fd, "fd", -1, "lock descriptor `N` and leave it locked (Linux)")
	f.BoolVar(&j.remove, "remove", false, "remove the lock file at the end, unless others wait")
	f.Var((*secondsFlag)(&j.killHard), "kill-after",
		"kill the command `DURATION` after a signal or a lost lock")
	f.BoolVarP(&verbose, "verbose", "v", false, "say what is done")
	f.BoolVarP(&j.quiet, "quiet", "q", false, "do not tell of waits, nor that the lock is held")
	cmd.MarkFlagsMutuallyExclusive("shared", "exclusive")
	cmd.MarkFlagsMutuallyExclusive("nonblock", "wait")
	cmd.MarkFlagsMutuallyExclusive("fd", "lock")
	cmd.MarkFlagsMutuallyExclusive("fd", "remove")
	cmd.MarkFlagsMutuallyExclusive("fd", "close")
	for _, other := range []string{"close", "remove", "kill-after"} {
		cmd.MarkFlagsMutuallyExclusive("no-fork", other)
	}
	return cmd
}

// parse completes the job with what is not in the flags.
func (j *job) parse(cmd *cobra.Command, args []string, ifBusy string) error {
	nonblock, _ := cmd.Flags().GetBool("nonblock")
	switch ifBusy {
	case "wait":
	case "fail", "skip":
		if !cmd.Flags().Changed("wait") {
			nonblock = true
		}
		j.skip = ifBusy == "skip"
	default:
		return cli.UsageError("--if-busy is %q, but must be wait, fail or skip", ifBusy)
	}
	if nonblock {
		j.wait = 0
	}
	if len(j.locks) == 0 && j.fd < 0 {
		if len(args) == 0 {
			return cli.UsageError("which lock?\nUsage: fasteners %s", cmd.Use)
		}
		j.locks, args = args[:1], args[1:]
	}
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	j.command = args
	switch {
	case j.script != "" && len(args) > 0:
		return cli.UsageError("a command and --command")
	case j.script == "" && len(args) == 0 && j.fd < 0:
		return cli.UsageError("which command?\nUsage: fasteners %s", cmd.Use)
	}
	return nil
}

// shellStatus returns the status with which a shell says that a command could
// not be started.
func shellStatus(err error) int {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return cli.ExitNotFound
	}
	return cli.ExitCannotRun
}

// run does the job. Its error has the status to exit with.
func (j *job) run() error {
	holds, err := j.acquire()
	if err != nil {
		return err
	}
	if len(j.command) == 0 && j.script == "" {
		return nil // with fd: the lock stays with those who have the descriptor
	}
	c := j.newChild()
	if err := j.inherit(c, holds); err != nil {
		return j.end(holds, false, err)
	}
	j.say("executing %s", c)
	if j.noFork {
		return j.startError(c, c.replace())
	}
	signals := make(chan os.Signal, 10)
	signal.Notify(signals, c.signals()...)
	if err := c.start(); err != nil {
		return j.end(holds, false, j.startError(c, err))
	}
	status := j.attend(c, holds, signals)
	return j.end(holds, c.inherited, &cli.StatusError{Status: status})
}

func (j *job) startError(c *child, err error) error {
	return &cli.StatusError{Status: j.startStatus(err), Err: fmt.Errorf("execute %s: %w", c, err)}
}

// say tells what is done, if it shall be told.
func (j *job) say(format string, args ...any) {
	if j.verbose != nil {
		fmt.Fprintln(j.verbose, cli.Printable(j.program+": "+fmt.Sprintf(format, args...)))
	}
}

func (j *job) warn(format string, args ...any) {
	fmt.Fprintln(j.stderr, cli.Printable(j.program+": "+fmt.Sprintf(format, args...)))
}

// inherit lets the child inherit the locks, or be killed with this process.
func (j *job) inherit(c *child, holds []*hold) error {
	if j.close {
		return nil
	}
	for _, h := range holds {
		f, err := h.lock.File()
		switch {
		case err == nil && j.fd >= 0:
			_ = f.Close() // the child inherits fd itself
		case err == nil:
			err = c.inherit(f)
		case errors.Is(err, errors.ErrUnsupported) && !j.noFork:
			return c.dieWithParent()
		}
		if err != nil {
			return err
		}
	}
	c.inherited = true
	return nil
}

// attend waits for the child to end, and returns its exit status. Meanwhile it
// passes signals on.
func (j *job) attend(c *child, holds []*hold, signals <-chan os.Signal) int {
	ended := make(chan int, 1)
	go func() { ended <- c.wait() }()
	lost := make(chan *hold, len(holds))
	for _, h := range holds {
		context.AfterFunc(h.held, func() { lost <- h })
	}
	var kill <-chan time.Time
	for {
		select {
		case status := <-ended:
			return status
		case s := <-signals:
			c.passOn(s)
			if j.killHard > 0 && kill == nil && endsProcess(s) {
				kill = time.After(j.killHard)
			}
		case h := <-lost:
			j.warn("%s: %v", h.path, context.Cause(h.held))
			if j.killHard > 0 && kill == nil {
				c.terminate()
				kill = time.After(j.killHard)
			}
		case <-kill:
			j.warn("killing %s", c)
			c.kill()
		}
	}
}

// end removes the lock files and releases the locks as far as that is asked
// for, and returns err. What processes have inherited is released when the last
// of them exits.
func (j *job) end(holds []*hold, inherited bool, err error) error {
	for _, h := range holds {
		if j.fd >= 0 {
			continue
		}
		if inherited && !j.remove && h.held.Err() == nil {
			continue
		}
		if releaseErr := h.end(j.remove, j.shared); releaseErr != nil {
			j.warn("%v", releaseErr)
		}
	}
	return err
}
