package main

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// A progressLine tells how far a command is: in place on a terminal, and with a line for each step
// elsewhere.
type progressLine struct {
	out     io.Writer
	inPlace bool
	width   int
}

func newProgressLine(out io.Writer) *progressLine {
	l := &progressLine{out: out}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		l.inPlace, l.width = true, 80
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 1 {
			l.width = width
		}
	}
	return l
}

func (l *progressLine) print(text string) {
	if !l.inPlace {
		fmt.Fprintln(l.out, text)
		return
	}
	if most := l.width - 1; len(text) > most {
		text = text[:most]
	}
	fmt.Fprintf(l.out, "\r%-*s\r%s", l.width-1, "", text)
}

// clear removes the line from a terminal.
func (l *progressLine) clear() {
	if l.inPlace {
		fmt.Fprintf(l.out, "\r%-*s\r", l.width-1, "")
	}
}
