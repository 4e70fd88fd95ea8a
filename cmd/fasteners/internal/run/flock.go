package run

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/pflag"

	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/cli"
)

// Exit statuses of flock(1).
const (
	flockBusy        = 1
	flockBadFile     = 65 // EX_DATAERR: the descriptor cannot be locked
	flockNoFile      = 66 // EX_NOINPUT: the file cannot be opened
	flockUnavailable = 69 // EX_UNAVAILABLE: the command cannot be executed
)

const flockUsage = `Usage:
 flock [options] <file> <command> [<argument>...]
 flock [options] <file> -c <command>
 flock [options] <file descriptor number>

Runs a command under a lock as flock(1) does, but with a lock of fasteners(1).
It excludes fasteners(1), Python's fasteners, and other programs that use
fcntl(2), but not those that use flock(2).

Options:
`

// Flock does what flock(1) does with these arguments.
func Flock(args []string) error {
	j := &job{
		program: "flock", fd: -1, wait: forever, busyStatus: flockBusy, stderr: os.Stderr, quiet: true,
		errorStatus: flockErrorStatus, startStatus: func(error) int { return flockUnavailable },
		tookFormat: "getting lock took %.6[1]f seconds",
	}
	unlock := false
	f := pflag.NewFlagSet("flock", pflag.ContinueOnError)
	f.SetInterspersed(false)
	f.Usage = func() {}
	f.SortFlags = false
	// Of these the last one counts.
	mode := func(shared, unlocked bool) func(string) error {
		return func(string) error { j.shared, unlock = shared, unlocked; return nil }
	}
	f.BoolFuncP("shared", "s", "get a shared lock", mode(true, false))
	f.BoolFuncP("exclusive", "x", "get an exclusive lock (default)", mode(false, false))
	f.BoolFuncP("e", "e", "", mode(false, false))
	_ = f.MarkHidden("e")
	f.BoolFuncP("unlock", "u", "remove a lock", mode(false, true))
	nonblock := f.BoolP("nonblock", "n", false, "fail rather than wait")
	f.VarP((*secondsFlag)(&j.wait), "timeout", "w", "wait for a limited amount of time, in `secs`")
	f.VarP((*statusFlag)(&j.busyStatus), "conflict-exit-code", "E",
		"exit `code` after conflict or timeout")
	f.BoolVarP(&j.close, "close", "o", false, "close file descriptor before running command")
	f.BoolVarP(&j.noFork, "no-fork", "F", false, "execute command without forking")
	verbose := f.Bool("verbose", false, "increase verbosity")
	help := f.BoolP("help", "h", false, "display this help")
	version := f.BoolP("version", "V", false, "display version")
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		switch name {
		case "nb", "nonblocking":
			name = "nonblock"
		case "wait":
			name = "timeout"
		}
		return pflag.NormalizedName(name)
	})
	if err := f.Parse(args); err != nil {
		return cli.UsageError("%w", err)
	}
	switch {
	case *help:
		fmt.Print(flockUsage, f.FlagUsages())
		return nil
	case *version:
		fmt.Println("flock of fasteners", cli.Version())
		return nil
	case j.noFork && j.close:
		return cli.UsageError("the --no-fork and --close options are incompatible")
	}
	if *verbose {
		j.verbose = os.Stdout
	}
	if *nonblock {
		j.wait = 0
	}
	if err := j.parseFlock(f.Args()); err != nil {
		return err
	}
	if unlock {
		return j.unlock()
	}
	return j.run()
}

// parseFlock completes the job with what is not an option.
func (j *job) parseFlock(args []string) error {
	switch {
	case len(args) == 0:
		return cli.UsageError("not enough arguments")
	case len(args) == 1:
		n, err := strconv.ParseUint(args[0], 10, 31)
		if err != nil {
			return cli.UsageError("bad file descriptor: %q", args[0])
		}
		j.fd = int(n)
		return nil
	case args[1] == "-c" || args[1] == "--command":
		if len(args) != 3 {
			return cli.UsageError("%s requires exactly one command argument", args[1])
		}
		j.script = args[2]
	default:
		j.command = args[1:]
	}
	j.locks = args[:1]
	// flock(1) creates no directories.
	if _, err := os.Stat(filepath.Dir(args[0])); err != nil {
		err = fmt.Errorf("cannot open lock file %s: %w", args[0], err)
		return &cli.StatusError{Status: flockNoFile, Err: err}
	}
	return nil
}

// unlock unlocks the file of the descriptor. A file that the command line names
// was opened by nobody else, so that there is nothing to unlock.
func (j *job) unlock() error {
	if j.fd >= 0 {
		if err := unlockDescriptor(j.fd); err != nil {
			return &cli.StatusError{Status: flockBadFile, Err: fmt.Errorf("%d: %w", j.fd, err)}
		}
		return nil
	}
	if len(j.command) == 0 && j.script == "" {
		return nil
	}
	c := j.newChild()
	if err := c.start(); err != nil {
		return j.startError(c, err)
	}
	return &cli.StatusError{Status: c.wait()}
}

func flockErrorStatus(err error) int {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) && !errors.Is(err, errors.ErrUnsupported) {
		return flockNoFile
	}
	return flockBadFile
}
