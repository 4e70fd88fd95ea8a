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

// Each contender runs in processes of its own, so that it does not pay for the timers, garbage
// and threads of another one, and a crash is a result. A process is this program, or
// worker.py. It reads requests from stdin and writes replies to stdout, each a JSON value. If
// it fails, it prints the reason to stderr and exits.

// A request says what a process has to do. Not every Do uses every field.
type request struct {
	Do      string  `json:"do"`
	Seconds float64 `json:"seconds"` // to measure
	Settle  float64 `json:"settle"`  // seconds to wait before that
	Start   int64   `json:"start"`   // when to begin, by the monotonic clock, in nanoseconds
	N       int     `json:"n"`       // goroutines (threads in Python), or pairs of acquire and release
	Fresh   bool    `json:"fresh"`   // use a new handle each time
	Shared  bool    `json:"shared"`  // use one handle in all goroutines
}

// A reply says what the process has done. Times are in nanoseconds, memory is in bytes.
type reply struct {
	Version string  `json:"version"`
	At      int64   `json:"at"`      // when it was done, by the monotonic clock, which all processes share
	Pairs   int64   `json:"pairs"`   // of acquire and release
	Nanos   int64   `json:"nanos"`   // that they took
	CPU     int64   `json:"cpu"`     // user and system time
	Lost    int64   `json:"lost"`    // updates of a counter that were overwritten
	Longest int64   `json:"longest"` // longest wait
	Allocs  float64 `json:"allocs"`  // per pair
	Threads int64   `json:"threads"`
	Idle    int64   `json:"idle"` // resident memory before the request
	Memory  int64   `json:"memory"`
	Served  int64   `json:"served"` // goroutines that have acquired and released the lock
}

// Variables in the environment of a worker.
const (
	envContender = "FASTENERS_BENCH_CONTENDER"
	envPath      = "FASTENERS_BENCH_PATH"
)

// python is Debian's interpreter, because Debian packages the libraries for it. Another one
// may come first in $PATH.
var python = "/usr/bin/python3"

//go:embed worker.py
var pythonWorker string

// replyTimeout is how much longer than the request itself a process may take to reply.
const replyTimeout = 30 * time.Second

// A process is a worker, as the benchmark sees it. After an error its replies are empty.
type process struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *json.Decoder
	stderr  bytes.Buffer
	version string
	err     error
}

// start starts a process whose lock file is path.
func start(c *contender, path string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(self)}
	if c.kind == pythonLibrary {
		p.cmd = exec.Command(python, "-c", pythonWorker, c.module, path)
	}
	// The cause of a crash is enough, without the stacks of thousands of goroutines.
	p.cmd.Env = append(os.Environ(), "GOTRACEBACK=none", "TMPDIR="+filepath.Dir(path),
		envContender+"="+c.name, envPath+"="+path)
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
	p.version = p.receive(replyTimeout).Version
	return p, nil
}

func (p *process) call(r request) reply {
	p.send(r)
	return p.receive(seconds(r.Seconds+r.Settle) + replyTimeout)
}

// send does not report errors: receive finds out that the process has exited, and why.
func (p *process) send(r request) { _ = json.NewEncoder(p.in).Encode(r) }

func (p *process) receive(limit time.Duration) (r reply) {
	if p.err != nil {
		return r
	}
	late := time.AfterFunc(limit, func() { _ = p.cmd.Process.Kill() })
	err := p.out.Decode(&r)
	if !late.Stop() {
		p.err = fmt.Errorf("no reply within %v", limit)
	} else if err != nil {
		p.err = fmt.Errorf("crashed: %s", p.exitReason())
	}
	return r
}

// exitReason waits for the process to exit, and returns why it has.
func (p *process) exitReason() string {
	reason := fmt.Sprint(p.cmd.Wait()) // afterwards, p.stderr is complete
	for line := range strings.Lines(p.stderr.String()) {
		line = strings.TrimSpace(line)
		if cause, ok := strings.CutPrefix(line, "fatal error: "); ok {
			return cause
		}
		if line != "" {
			reason = line
		}
	}
	return reason
}

func (p *process) close() {
	_ = p.cmd.Process.Kill() // it may be waiting for a lock
	_ = p.cmd.Wait()
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
