package cli

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// A ProgressLine is a line that tells how far something is: it is replaced on a
// terminal, and printed again elsewhere.
type ProgressLine struct {
	InPlace bool // it can be replaced

	out   io.Writer
	shown bool
}

// NewProgressLine returns a line that is not shown yet.
func NewProgressLine(out io.Writer) *ProgressLine {
	f, ok := out.(*os.File)
	dumb := os.Getenv("TERM") == "dumb" || os.Getenv("NO_COLOR") != ""
	return &ProgressLine{out: out, InPlace: ok && !dumb && term.IsTerminal(int(f.Fd()))}
}

const eraseLine = "\r\x1b[K"

// Print shows the text. It shortens one that is too long to be replaced.
func (l *ProgressLine) Print(text string) {
	if !l.InPlace {
		fmt.Fprintln(l.out, text)
		return
	}
	line := []rune(text)
	if width, _, err := term.GetSize(int(l.out.(*os.File).Fd())); err == nil && width > 1 {
		line = line[:min(len(line), width-1)]
	}
	fmt.Fprint(l.out, eraseLine+string(line))
	l.shown = true
}

// Clear removes the line from a terminal.
func (l *ProgressLine) Clear() {
	if l.shown {
		fmt.Fprint(l.out, eraseLine)
		l.shown = false
	}
}
