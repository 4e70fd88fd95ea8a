package look

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/cli"
	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/file"
)

// NewSweepCommand returns the command sweep.
func NewSweepCommand() *cobra.Command {
	s := &sweep{}
	cmd := &cobra.Command{
		Use:   "sweep [flags] DIR",
		Short: "Remove lock files that nobody holds or waits for",
		Long: `Sweep removes lock files in a directory and below: empty regular files whose
names match --name, and that have no other name (ln(1)). It removes a file as
the last thing before it releases the lock on it, so that the users of this
library cannot lose a lock by it. A program that has the path, but not yet the
lock, creates the file again.

A lock file has the time of its creation, as locking does not write to it. So
--older does not tell when it was last used.`,
		Args: cli.Args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return s.run(cmd, args[0]) },
	}
	f := cmd.Flags()
	f.Var((*ageFlag)(&s.older), "older", "only files that are older than `AGE`: 7d, 12h, 90m")
	f.StringVar(&s.name, "name", "*.lock", "only files whose name matches `PATTERN`")
	f.BoolVar(&s.dryRun, "dry-run", false, "print what would be removed, and remove nothing")
	f.BoolVarP(&s.verbose, "verbose", "v", false, "print what is kept, too, and why")
	return cmd
}

// A sweep is a removal of lock files.
type sweep struct {
	older           time.Duration
	name            string
	dryRun, verbose bool
}

func (s *sweep) run(cmd *cobra.Command, dir string) error {
	if _, err := filepath.Match(s.name, ""); err != nil {
		return cli.UsageError("--name: %w", err)
	}
	paths, err := filesBelow(dir)
	if err != nil {
		return err
	}
	removed, failed := 0, 0
	for _, path := range paths {
		if matched, _ := filepath.Match(s.name, filepath.Base(path)); !matched {
			continue
		}
		why, err := s.remove(path)
		switch {
		case err != nil:
			failed++
			fmt.Fprintf(cmd.ErrOrStderr(), "fasteners: %v\n", err)
		case why == "":
			removed++
			fmt.Fprintln(cmd.OutOrStdout(), path)
		case s.verbose:
			fmt.Fprintf(cmd.ErrOrStderr(), "kept %s: %s\n", path, why)
		}
	}
	if s.verbose {
		fmt.Fprintf(cmd.ErrOrStderr(), "%d removed\n", removed)
	}
	if failed > 0 {
		return &cli.StatusError{Status: cli.ExitSystem}
	}
	return nil
}

// remove removes a lock file, or returns why it does not.
func (s *sweep) remove(path string) (why string, err error) {
	if why, err = s.keeps(path); why != "" || err != nil {
		return why, err
	}
	lock := fasteners.NewInterProcessLock(path)
	ok, err := lock.TryAcquire()
	if err != nil {
		return "", err
	}
	if !ok {
		return "held", nil
	}
	defer func() {
		_ = lock.Release() // which finds that the file is not there
		if file.RemoveAfterRelease && why == "" && err == nil && !s.dryRun {
			err = os.Remove(path)
		}
	}()
	// Somebody may have written to the file, or have removed it, and the try
	// has made another one.
	if why, err = s.keeps(path); why != "" || err != nil {
		return why, err
	}
	if holders, _ := lock.Holders(); len(holders) > 1 {
		return "awaited", nil
	}
	if s.dryRun || file.RemoveAfterRelease {
		return "", nil
	}
	return "", os.Remove(path)
}

// keeps returns why a file is not one to remove, or nothing.
func (s *sweep) keeps(path string) (why string, err error) {
	info, err := os.Lstat(path)
	switch {
	case os.IsNotExist(err):
		return "not there any more", nil
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		return "not a regular file", nil
	case file.Links(info) > 1:
		return "it has several names, of which others may use another one", nil
	case info.Size() > 0:
		return "not empty, so not a lock file", nil
	case time.Since(info.ModTime()) < s.older:
		return "too young", nil
	}
	return "", nil
}

// ageFlag is a flag for a duration, in which d stands for 24 hours.
type ageFlag time.Duration

func (a *ageFlag) String() string { return time.Duration(*a).String() }
func (*ageFlag) Type() string     { return "age" }

func (a *ageFlag) Set(text string) error {
	var days float64
	var unit string
	if n, _ := fmt.Sscanf(text, "%f%s", &days, &unit); n == 2 && unit == "d" && days >= 0 && days < 1e5 {
		*a = ageFlag(days * 24 * float64(time.Hour))
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return fmt.Errorf("not an age such as 7d, 12h or 90m")
	}
	*a = ageFlag(d)
	return nil
}
