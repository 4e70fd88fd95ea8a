package cli

import (
	"encoding/json"
	"io"
	"strings"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/internal/printable"
)

// Printable returns a text that is safe to print, as the errors of the library
// are: others may have chosen the names of files and programs.
func Printable(text string) string { return printable.Text(text) }

// PrintJSON prints one JSON document.
func PrintJSON(out io.Writer, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err == nil {
		_, err = out.Write(append(data, '\n'))
	}
	return err
}

// Rounded returns d with three digits or less.
func Rounded(d time.Duration) time.Duration {
	for unit := time.Duration(1); ; unit *= 10 {
		if d < 1000*unit {
			return d.Round(unit)
		}
	}
}

// DescribeHolders describes those of the processes that hold the lock.
func DescribeHolders(holders []fasteners.Holder) string {
	var names []string
	for _, h := range holders {
		if !h.Waiting {
			names = append(names, Describe(h))
		}
	}
	if len(names) == 0 {
		return "an unknown process"
	}
	return strings.Join(names, ", ")
}

// Describe describes a process. If that runs this program, its arguments say
// what the lock is for.
func Describe(h fasteners.Holder) string {
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
	return Printable(h.String())
}
