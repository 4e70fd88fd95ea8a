// Fasteners runs commands under the locks of package fasteners, tells who holds such a lock, and tries
// whether a file system keeps what the locks need of it.
//
// Called by the name flock, it takes the options of flock(1).
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// Exit statuses, as in sysexits.h and of shells.
const (
	exitFailure    = 1   // what was looked for or tried was not found to be so
	exitUsage      = 64  // EX_USAGE: the command line is wrong
	exitSystem     = 71  // EX_OSERR: the system has refused something
	exitBusy       = 75  // EX_TEMPFAIL: somebody else holds the lock
	exitCannotRun  = 126 // the command could not be run
	exitNotFound   = 127 // there is no such command
	exitSignalBase = 128 // and the number of the signal that has ended the command
)

// A statusError makes the program exit with a status. It says nothing if err is nil.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *statusError) Unwrap() error { return e.err }

func usageError(format string, args ...any) error {
	return &statusError{exitUsage, fmt.Errorf(format, args...)}
}

func main() {
	name := strings.TrimSuffix(filepath.Base(os.Args[0]), ".exe")
	if name == "flock" {
		os.Exit(report(name, flock(os.Args[1:])))
	}
	os.Exit(report("fasteners", newRootCommand().Execute()))
}

// report prints err and returns the exit status for it. An error without one is about the command line.
func report(program string, err error) int {
	if err == nil {
		return 0
	}
	status := &statusError{exitUsage, err}
	errors.As(err, &status)
	if status.err != nil {
		text := err.Error()
		if status.status != exitUsage { // that has several lines
			text = printable(text)
		}
		fmt.Fprintf(os.Stderr, "%s: %s\n", program, text)
	}
	return status.status
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "fasteners",
		Short: "Run commands under file locks, and look at these locks",
		Long: `Fasteners runs commands under locks between processes, tells who holds a lock, and tries
whether the locks work on a file system. The locks are those of the Go package
github.com/go-fasteners/fasteners and of Python's fasteners: programs that use them and
this command exclude each other. They do not exclude flock(1).`,
		Version:       programVersion(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	commands := []*cobra.Command{
		newRunCommand(),
		newStatusCommand(),
		newListCommand(),
		newCheckCommand(),
		newStressCommand(),
		newSweepCommand(),
		newManCommand(),
	}
	for _, cmd := range commands {
		cmd.RunE = withStatus(cmd.RunE)
	}
	root.AddCommand(commands...)
	return root
}

// withStatus gives errors that have no exit status that of an error of the system.
func withStatus(run func(*cobra.Command, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		err := run(cmd, args)
		var status *statusError
		if err == nil || errors.As(err, &status) {
			return err
		}
		return &statusError{exitSystem, err}
	}
}

// args checks the number of arguments. Without a most, it is at least that number.
func args(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return usageError("wrong number of arguments\nUsage: %s", cmd.UseLine())
		}
		return nil
	}
}

const maxArgs = 1 << 20
