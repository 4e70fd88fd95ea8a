package look

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/cli"
)

// NewListCommand returns the command list.
func NewListCommand() *cobra.Command {
	var asJSON, watch bool
	cmd := &cobra.Command{
		Use:   "list [flags] [DIR]",
		Short: "List the locks that are held, with their holders and waiters",
		Long: `List lists the locks of this library that processes of this machine hold or wait
for, with path, mode, process, command and time. With DIR it lists those on
files in that directory and below, and also those of other programs on them that
exclude this library, such as Python's fasteners.

Without DIR it works only on Linux, and finds the locks of processes at whose
descriptors the user may look: root finds all. It exits with status 0 whether
there are locks or not.`,
		Args: cli.Args(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for {
				states, err := listLocks(args)
				if err != nil {
					return err
				}
				if watch && !asJSON && term.IsTerminal(int(os.Stdout.Fd())) {
					fmt.Fprint(cmd.OutOrStdout(), clearScreen)
				}
				if err := printStates(cmd.OutOrStdout(), states, asJSON); err != nil || !watch {
					return err
				}
				time.Sleep(time.Second)
			}
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	cmd.Flags().BoolVar(&watch, "watch", false, "list them again every second, until a signal ends that")
	return cmd
}

const clearScreen = "\x1b[H\x1b[2J"

// listLocks returns the locks that are held or waited for, by path.
func listLocks(dirs []string) ([]*lockState, error) {
	paths, err := lockedPaths()
	if len(dirs) > 0 {
		paths, err = filesBelow(dirs[0])
	}
	if err != nil {
		return nil, err
	}
	slices.Sort(paths)
	states := []*lockState{}
	for _, path := range slices.Compact(paths) {
		if s := stateOf(path); len(s.holders) > 0 {
			states = append(states, s)
		}
	}
	return states, nil
}

// filesBelow returns the regular files below dir. What cannot be read it leaves
// out, but not dir itself. It follows no symbolic links, unless dir is one,
// such as /var/lock.
func filesBelow(dir string) (paths []string, err error) {
	if link, err := os.Lstat(dir); err == nil && link.Mode()&fs.ModeSymlink != 0 {
		dir += string(filepath.Separator)
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil && path == dir:
			return err
		case err == nil && d.Type().IsRegular():
			paths = append(paths, path)
		}
		return nil
	})
	return paths, err
}
