// Package cli has what the commands share in how they speak to their users:
// exit statuses, errors, signals, and what they print.
package cli

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Exit statuses, as in sysexits.h and of shells.
const (
	ExitFailure    = 1   // what was looked for or tried was not found to be so
	ExitUsage      = 64  // EX_USAGE: the command line is wrong
	ExitSystem     = 71  // EX_OSERR: the system has refused something
	ExitBusy       = 75  // EX_TEMPFAIL: another process holds the lock
	ExitCannotRun  = 126 // the command could not be run
	ExitNotFound   = 127 // there is no such command
	ExitSignalBase = 128 // and the number of the signal that has ended the command
)

// A StatusError makes the program exit with a status. It says nothing if Err is
// nil.
type StatusError struct {
	Status int
	Err    error
}

// Error returns the text of Err, or nothing.
func (e *StatusError) Error() string {
	if e.Err == nil {
		return ""
	}
	return e.Err.Error()
}

// Unwrap returns Err.
func (e *StatusError) Unwrap() error { return e.Err }

// UsageError returns an error about the command line.
func UsageError(format string, args ...any) error {
	return &StatusError{ExitUsage, fmt.Errorf(format, args...)}
}

// Report prints err and returns the exit status for it. An error without one is
// about the command line.
func Report(program string, err error) int {
	if err == nil {
		return 0
	}
	status := &StatusError{ExitUsage, err}
	errors.As(err, &status)
	if status.Err != nil {
		text := err.Error()
		if status.Status != ExitUsage { // that has several lines
			text = Printable(text)
		}
		fmt.Fprintf(os.Stderr, "%s: %s\n", program, text)
	}
	return status.Status
}

// WithStatus gives errors of run that have no exit status that of an error of
// the system.
func WithStatus(run func(*cobra.Command, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		err := run(cmd, args)
		var status *StatusError
		if err == nil || errors.As(err, &status) {
			return err
		}
		return &StatusError{ExitSystem, err}
	}
}

// AnyNumber is for Args: there is no limit.
const AnyNumber = math.MaxInt

// Args checks the number of arguments.
func Args(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return UsageError("wrong number of arguments\nUsage: %s", cmd.UseLine())
		}
		return nil
	}
}

// Version returns the version of the module, as go install has got it.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}
