package main

import (
	"embed"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/cli"
)

// The manual pages are made of the help texts by go generate. The library that
// does that takes longer to start than all the rest of this program.
//
//go:generate go test -run TestManual -update .
//go:embed man/*.1
var manual embed.FS

func newManCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the manual pages to a directory",
		Long: `Man writes one manual page for each command to the directory DIR, which it
creates.`,
		Args: cli.Args(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o777); err != nil {
				return err
			}
			pages, err := fs.Glob(manual, "man/*")
			if err != nil {
				return err
			}
			for _, page := range pages {
				text, err := manual.ReadFile(page)
				if err == nil {
					err = os.WriteFile(filepath.Join(args[0], filepath.Base(page)), text, 0o666)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}
