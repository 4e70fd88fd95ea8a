package main

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// A progressLine is a line that tells how far something is: it is replaced on a terminal, and printed
// again elsewhere.
type progressLine struct {
	out     io.Writer
	inPlace bool
	shown   bool
}

func newProgressLine(out io.Writer) *progressLine {
	f, ok := out.(*os.File)
	dumb := os.Getenv("TERM") == "dumb" || os.Getenv("NO_COLOR") != ""
	return &progressLine{out: out, inPlace: ok && !dumb && term.IsTerminal(int(f.Fd()))}
}

const eraseLine = "\r\x1b[K"

// print shortens a line that is too long to be replaced.
func (l *progressLine) print(text string) {
	if !l.inPlace {
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

// clear removes the line from a terminal.
func (l *progressLine) clear() {
	if l.shown {
		fmt.Fprint(l.out, eraseLine)
		l.shown = false
	}
}
