// Fasteners runs commands under the locks of package fasteners, tells who holds
// such a lock, and tries whether a file system keeps what the locks need of it.
//
// Called by the name flock, it takes the options of flock(1).
package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/check"
	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/cli"
	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/look"
	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/run"
	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/stress"
)

func main() {
	name := strings.TrimSuffix(filepath.Base(os.Args[0]), ".exe")
	if name == "flock" {
		os.Exit(cli.Report(name, run.Flock(os.Args[1:])))
	}
	os.Exit(cli.Report("fasteners", newRootCommand().Execute()))
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "fasteners",
		Short: "Run commands under file locks, and look at these locks",
		Long: `Fasteners runs commands under locks between processes, tells who holds a lock,
and tries whether the locks work on a file system. The locks are those of the Go
package github.com/go-fasteners/fasteners and of Python's fasteners: programs
that use them and this command exclude each other. They do not exclude flock(1).`,
		Version:       cli.Version(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	commands := []*cobra.Command{
		run.NewCommand(),
		look.NewStatusCommand(),
		look.NewListCommand(),
		check.NewCommand(),
		stress.NewCommand(),
		look.NewSweepCommand(),
		newManCommand(),
	}
	for _, cmd := range commands {
		cmd.RunE = cli.WithStatus(cmd.RunE)
	}
	root.AddCommand(commands...)
	return root
}
