package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"
	"unsafe"
)

// The peers are Python programs that use Python's fasteners. They publish their holds on the board as
// others do, but look at nobody's: of two holds that overlap, the goroutine of the other one notices
// that.
//
//go:embed stress_peer.py
var peerProgram string

// A boardLayout tells a Python program where to write on the board.
type boardLayout struct {
	Phase    uintptr `json:"phase"`
	Reads    uintptr `json:"reads"`
	Writes   uintptr `json:"writes"`
	Since    uintptr `json:"since"`
	Until    uintptr `json:"until"`
	Inode    uintptr `json:"inode"`
	Waiting  uintptr `json:"waiting"`
	Longest  uintptr `json:"longest"`
	Attempts uintptr `json:"attempts"` // of the operation
	Acquired uintptr `json:"acquired"` // of the operation
	Waits    uintptr `json:"waits"`
	SubBits  int     `json:"subBits"`
}

// layout returns where the first slot of a worker is.
func (b *board) layout(worker int) *boardLayout {
	s := &b.of(worker)[0]
	at := func(p unsafe.Pointer) uintptr { return uintptr(p) - uintptr(unsafe.Pointer(&b.data[0])) }
	return &boardLayout{
		Phase:    at(unsafe.Pointer(&b.header.phase)),
		Reads:    at(unsafe.Pointer(&s.reads)),
		Writes:   at(unsafe.Pointer(&s.writes)),
		Since:    at(unsafe.Pointer(&s.since)),
		Until:    at(unsafe.Pointer(&s.until)),
		Inode:    at(unsafe.Pointer(&s.inode)),
		Waiting:  at(unsafe.Pointer(&s.waiting)),
		Longest:  at(unsafe.Pointer(&s.longest)),
		Attempts: at(unsafe.Pointer(&s.attempts[doExclusive])),
		Acquired: at(unsafe.Pointer(&s.acquired[doExclusive])),
		Waits:    at(unsafe.Pointer(&s.waits)),
		SubBits:  subBits,
	}
}

// findPython returns the command of a Python that has fasteners.
func findPython() ([]string, error) {
	var problems []error
	for _, name := range []string{"python3", "/usr/bin/python3", "python"} {
		path, err := exec.LookPath(name)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		out, err := exec.CommandContext(ctx, path, "-c", "import fasteners").CombinedOutput()
		cancel()
		if err == nil {
			return []string{path, "-c", peerProgram}, nil
		}
		problems = append(problems, fmt.Errorf("%s: %w: %s", path, err, lastLine(out)))
	}
	return nil, fmt.Errorf("there is no python3 that has fasteners (pip install fasteners): %w", errors.Join(problems...))
}

func lastLine(text []byte) string {
	end := len(text)
	for end > 0 && text[end-1] == '\n' {
		end--
	}
	start := end
	for start > 0 && text[start-1] != '\n' {
		start--
	}
	return string(text[start:end])
}

func startPython(command []string) (*worker, error) {
	if os.Getenv(breakVar) != "" {
		return nil, errors.New("a peer's locks cannot be broken")
	}
	return start(exec.Command(command[0], command[1:]...))
}
