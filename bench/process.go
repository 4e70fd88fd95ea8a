//go:build linux

package main

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Each contender works in processes of its own, so that none pays for the timers, garbage
// and threads of another, and one that crashes is a result. They are this program, or
// worker.py. They take requests on stdin and give replies on stdout, each a JSON value. One
// that fails says why on stderr and ends.

// A request is what a process is to do. Not all fields mean something to all.
type request struct {
	Do      string  `json:"do"`
	Seconds float64 `json:"seconds"` // to measure for
	Settle  float64 `json:"settle"`  // seconds to let pass before
	Start   int64   `json:"start"`   // not before this monotonic time, in nanoseconds
	N       int     `json:"n"`       // goroutines (threads), or pairs of acquire and release
	Fresh   bool    `json:"fresh"`   // a new handle each time
	Shared  bool    `json:"shared"`  // one handle for all
}

// A reply is what it has done. Times are in nanoseconds, memory in bytes.
type reply struct {
	Version string  `json:"version"`
	At      int64   `json:"at"`      // when it was done, by a clock that all processes share
	Pairs   int64   `json:"pairs"`   // of acquire and release
	Nanos   int64   `json:"nanos"`   // that it took
	CPU     int64   `json:"cpu"`     // user and system time
	Lost    int64   `json:"lost"`    // updates of a counter that others have overwritten
	Longest int64   `json:"longest"` // wait
	Allocs  float64 `json:"allocs"`  // per pair
	Threads int64   `json:"threads"`
	Idle    int64   `json:"idle"` // resident memory before anything was done
	Memory  int64   `json:"memory"`
	Served  int64   `json:"served"` // of those that waited
}

// The environment of a worker has these.
const (
	envContender = "FASTENERS_BENCH_CONTENDER"
	envPath      = "FASTENERS_BENCH_PATH"
)

// Debian's packages are for Debian's Python, and another one may come first in $PATH.
var python = "/usr/bin/python3"

//go:embed worker.py
var pythonWorker string

// patience is for how long a process may be late with its reply.
const patience = 30 * time.Second

// A process is a worker, seen from the outside. After an error, its replies are empty.
type process struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *json.Decoder
	stderr  bytes.Buffer
	version string
	err     error
}

// start starts a process that locks path.
func start(c *contender, path string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(self)}
	if c.kind == pythonLibrary {
		p.cmd = exec.Command(python, "-c", pythonWorker, c.module, path)
	}
	// Thousands of stack traces say no more than the cause.
	p.cmd.Env = append(os.Environ(), "GOTRACEBACK=none", "TMPDIR="+filepath.Dir(path), envContender+"="+c.name, envPath+"="+path)
	p.cmd.Stderr = &p.stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = json.NewDecoder(out)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.version = p.receive(patience).Version
	return p, nil
}

func (p *process) call(r request) reply {
	p.send(r)
	return p.receive(seconds(r.Seconds+r.Settle) + patience)
}

// send leaves it to receive to find out that the process has ended, and why.
func (p *process) send(r request) { _ = json.NewEncoder(p.in).Encode(r) }

func (p *process) receive(limit time.Duration) (r reply) {
	if p.err != nil {
		return r
	}
	late := time.AfterFunc(limit, func() { _ = p.cmd.Process.Kill() })
	err := p.out.Decode(&r)
	if !late.Stop() {
		p.err = fmt.Errorf("no answer within %v", limit)
	} else if err != nil {
		p.err = fmt.Errorf("crashed: %s", p.lastWords())
	}
	return r
}

// lastWords returns why the process has ended.
func (p *process) lastWords() string {
	words := fmt.Sprint(p.cmd.Wait()) // all of stderr is here when it returns
	for line := range strings.Lines(p.stderr.String()) {
		line = strings.TrimSpace(line)
		if cause, ok := strings.CutPrefix(line, "fatal error: "); ok {
			return cause
		}
		if line != "" {
			words = line
		}
	}
	return words
}

func (p *process) close() {
	_ = p.cmd.Process.Kill() // it may be waiting for a lock
	_ = p.cmd.Wait()
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
