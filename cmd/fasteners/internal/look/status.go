// Package look finds lock files, tells which processes hold or await the locks
// on them, and removes those that no process needs.
package look

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/cli"
)

// A lockState is what is known about one lock, for people and for JSON.
type lockState struct {
	Path    string    `json:"path"`
	State   string    `json:"state"` // free, held, or unknown
	Holders []process `json:"holders"`
	Waiters []process `json:"waiters"`
	Error   string    `json:"error,omitempty"`

	err     error
	holders []fasteners.Holder
}

// A process holds a lock, or waits for it.
type process struct {
	PID     int        `json:"pid,omitempty"` // 0 if unknown
	Command string     `json:"command,omitempty"`
	Mode    string     `json:"mode"` // exclusive, shared, or open: of this only the open file is known
	Since   *time.Time `json:"since,omitempty"`
}

func newProcess(h fasteners.Holder) process {
	p := process{PID: h.PID, Command: h.Command, Mode: "exclusive"}
	switch {
	case h.Opened:
		p.Mode = "open"
	case h.Shared:
		p.Mode = "shared"
	}
	if !h.Since.IsZero() {
		p.Since = &h.Since
	}
	return p
}

// stateOf looks at the lock on path.
func stateOf(path string) *lockState {
	s := &lockState{Path: path, State: "free", Holders: []process{}, Waiters: []process{}}
	s.holders, s.err = fasteners.NewInterProcessLock(path).Holders()
	if s.err != nil {
		s.State, s.Error = "unknown", s.err.Error()
	}
	for _, h := range s.holders {
		switch {
		case h.Waiting:
			s.Waiters = append(s.Waiters, newProcess(h))
			continue
		case !h.Opened:
			s.State = "held"
		case s.State == "free":
			s.State = "unknown"
		}
		s.Holders = append(s.Holders, newProcess(h))
	}
	return s
}

// print prints the state: a line for the lock, and one for each process that waits.
func (s *lockState) print(w io.Writer) {
	switch {
	case len(s.Holders) > 0:
		fmt.Fprintf(w, "%s: held%s by %s\n",
			cli.Printable(s.Path), modeWord(s.holders[0]), cli.DescribeHolders(s.holders))
	case s.err != nil:
		fmt.Fprintf(w, "%s: unknown: %s\n", cli.Printable(s.Path), cli.Printable(s.err.Error()))
	default:
		fmt.Fprintf(w, "%s: %s\n", cli.Printable(s.Path), s.State)
	}
	for _, h := range s.holders {
		if h.Waiting {
			h.Waiting = false // it is in the line already
			fmt.Fprintf(w, "\t%s waits%s\n", cli.Describe(h), modeWord(h))
		}
	}
}

// modeWord returns a word for the mode of a holder unless that is the usual one.
func modeWord(h fasteners.Holder) string {
	switch {
	case h.Opened:
		return " perhaps"
	case h.Shared:
		return " shared"
	}
	return ""
}

// NewStatusCommand returns the command status.
func NewStatusCommand() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "status [flags] LOCK...",
		Short: "Tell who holds a lock and who waits for it",
		Long: `Status tells of each lock whether it is free or held, by which process, since
when, and who waits for it. It acquires nothing and creates nothing: a file that
does not exist is a free lock. It exits with status 0 if all locks are free, 75
if one is held, and 71 if that is not known of one.

A process has no number if it is one of another machine or PID namespace.
Windows tells only which processes have the file open.`,
		Args: cli.Args(1, cli.AnyNumber),
		RunE: func(cmd *cobra.Command, paths []string) error {
			states := []*lockState{}
			result := &cli.StatusError{}
			for _, path := range paths {
				s := stateOf(path)
				states = append(states, s)
				switch {
				case s.State == "held":
					result.Status = cli.ExitBusy
				case s.State == "unknown" && result.Status == 0:
					result.Status = cli.ExitSystem
				}
			}
			if err := printStates(cmd.OutOrStdout(), states, asJSON); err != nil {
				return err
			}
			return result
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return cmd
}

func printStates(w io.Writer, states []*lockState, asJSON bool) error {
	if asJSON {
		return cli.PrintJSON(w, states)
	}
	for _, s := range states {
		s.print(w)
	}
	return nil
}
