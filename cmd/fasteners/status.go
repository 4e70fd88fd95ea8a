package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/go-fasteners/fasteners"
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
	Mode    string     `json:"mode"` // exclusive, shared, or open: it is only known to have the file open
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

// printable returns a text with its control characters written as in Go, lest a name forge a line, or
// what it contains control the terminal: others may have chosen the names of files and programs.
func printable(text string) string {
	if !strings.ContainsFunc(text, unicode.IsControl) {
		return text
	}
	var s strings.Builder
	for _, r := range text {
		if unicode.IsControl(r) {
			s.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		} else {
			s.WriteRune(r)
		}
	}
	return s.String()
}

// describe describes the holders that hold a lock.
func describe(holders []fasteners.Holder) string {
	var names []string
	for _, h := range holders {
		if !h.Waiting {
			names = append(names, describeOne(h))
		}
	}
	if len(names) == 0 {
		return "an unknown process"
	}
	return strings.Join(names, ", ")
}

// describeOne describes a process. If that runs this program, its arguments say what the lock is for.
func describeOne(h fasteners.Holder) string {
	if h.Command == "fasteners" || h.Command == "flock" {
		if args := arguments(h.PID); len(args) > 1 {
			const most = 60
			text := []rune(h.Command + " " + strings.Join(args[1:], " "))
			if len(text) > most {
				text = append(text[:most-1], '…')
			}
			h.Command = string(text)
		}
	}
	return printable(h.String())
}

// print prints the state: a line for the lock, and one for each process that waits.
func (s *lockState) print(w io.Writer) {
	switch {
	case len(s.Holders) > 0:
		fmt.Fprintf(w, "%s: held%s by %s\n", printable(s.Path), shared(s.holders[0]), describe(s.holders))
	case s.err != nil:
		fmt.Fprintf(w, "%s: unknown: %s\n", printable(s.Path), printable(s.err.Error()))
	default:
		fmt.Fprintf(w, "%s: %s\n", printable(s.Path), s.State)
	}
	for _, h := range s.holders {
		if h.Waiting {
			h.Waiting = false // it is in the line already
			fmt.Fprintf(w, "\t%s waits%s\n", describeOne(h), shared(h))
		}
	}
}

// shared returns a word for the mode of a holder unless that is the usual one.
func shared(h fasteners.Holder) string {
	switch {
	case h.Opened:
		return " perhaps"
	case h.Shared:
		return " shared"
	}
	return ""
}

func newStatusCommand() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "status [flags] LOCK...",
		Short: "Tell who holds a lock and who waits for it",
		Long: `Status tells of each lock whether it is free or held, by which process, since when, and who
waits for it. It acquires nothing and creates nothing: a file that does not exist is a free
lock. It exits with status 0 if all locks are free, 75 if one is held, and 71 if that is not
known of one.

A process has no number if it is one of another machine or PID namespace. Windows tells
only which processes have the file open.`,
		Args: args(1, maxArgs),
		RunE: func(cmd *cobra.Command, paths []string) error {
			states := []*lockState{}
			result := &statusError{}
			for _, path := range paths {
				s := stateOf(path)
				states = append(states, s)
				switch {
				case s.State == "held":
					result.status = exitBusy
				case s.State == "unknown" && result.status == 0:
					result.status = exitSystem
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
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(states)
	}
	for _, s := range states {
		s.print(w)
	}
	return nil
}
