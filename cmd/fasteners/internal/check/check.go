// Package check tries whether a file system has what the locks need of it.
package check

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/cli"
	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/file"
	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/worker"
)

// NewCommand returns the command check.
func NewCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check DIR",
		Short: "Try whether locks work on the file system of a directory",
		Long: `Check tries, with several processes and in a new directory in DIR, what the
locks need of the file system: exclusion, readers that share the lock, release
when the holder dies, and others. It prints the type of the file system and a
verdict for each. The directory is removed.

It cannot tell whether processes of other hosts are excluded: on a file system
that several hosts use, no check on one of them can.

The exit status is 0 if everything holds, and 1 if something does not.`,
		Example: `  fasteners check /mnt/share
  fasteners check --json . | jq .ok`,
		Args: cli.Args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if worker.Is() {
				return serve()
			}
			return run(cmd, args[0], asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

// A verdict is what has come of the check of one property.
type verdict struct {
	Name   string `json:"name"`
	Result result `json:"result"`
	Detail string `json:"detail"`
	Means  string `json:"means,omitempty"` // what a failure means for the user
}

type result string

const (
	pass result = "pass"
	fail result = "fail"
	info result = "info" // a fact that is neither good nor bad
)

// A report is what --json prints.
type report struct {
	Directory  string      `json:"directory"`
	FileSystem file.System `json:"fileSystem"`
	Checks     []verdict   `json:"checks"`
	OK         bool        `json:"ok"`
}

func run(cmd *cobra.Command, dir string, asJSON bool) (err error) {
	ctx, stop := cli.SignalContext()
	defer stop()
	c, err := newChecker(ctx, dir)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := c.crew.Close(); err == nil {
			err = closeErr
		}
	}()
	r := report{Directory: dir, FileSystem: file.SystemOf(c.crew.Dir), OK: true}
	out := cmd.OutOrStdout()
	if asJSON {
		out = io.Discard
	}
	printFileSystem(out, r.Directory, r.FileSystem)
	line := cli.NewProgressLine(cmd.ErrOrStderr())
	for i, p := range properties {
		line.Print(fmt.Sprintf("checking %s (%d of %d)", p.name, i+1, len(properties)))
		v := p.check(c)
		line.Clear()
		if ctx.Err() != nil {
			return cli.Interruption(ctx)
		}
		r.Checks = append(r.Checks, v)
		r.OK = r.OK && v.Result != fail
		printVerdict(out, v)
	}
	if asJSON {
		if err := cli.PrintJSON(cmd.OutOrStdout(), r); err != nil {
			return err
		}
	} else {
		printConclusion(out, r.OK)
	}
	if !r.OK {
		return &cli.StatusError{Status: cli.ExitFailure}
	}
	return nil
}

func printFileSystem(out io.Writer, dir string, fs file.System) {
	fmt.Fprintf(out, "directory:    %s\nfile system:  %s", dir, fs)
	if fs.Source != "" {
		fmt.Fprintf(out, ", %s on %s", fs.Source, fs.Mount)
	}
	fmt.Fprintln(out)
	if fs.Options != "" {
		fmt.Fprintf(out, "options:      %s\n", fs.Options)
	}
	for _, note := range fs.Notes {
		fmt.Fprintf(out, "note:         %s\n", note)
	}
	fmt.Fprintln(out)
}

func printVerdict(out io.Writer, v verdict) {
	fmt.Fprintf(out, "%s  %-14s %s\n", v.Result, v.Name, v.Detail)
	if v.Means != "" {
		fmt.Fprintf(out, "      %-14s %s\n", "", v.Means)
	}
}

func printConclusion(out io.Writer, ok bool) {
	if ok {
		fmt.Fprintln(out, "\nLocks work in this directory, among the processes of this machine.")
	} else {
		fmt.Fprintln(out, "\nDo not use locks in this directory. Put the lock files on a local file system.")
	}
}
