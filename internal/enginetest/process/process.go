// Package process runs the test binary, and other programs, as processes that tests can kill and
// stop.
package process

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// variable makes the test binary run the function of that name instead of the tests.
const variable = "FASTENERS_TEST_PROCESS"

// Main runs one of the functions, with the arguments of [Self], if this process was started for
// that, and exits. TestMain has to call it first. If the parent exits, this process exits, too.
func Main(functions map[string]func(args []string) error) {
	name := os.Getenv(variable)
	if name == "" {
		return
	}
	os.Unsetenv(variable)
	go func() { // the parent has the other end
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	f := functions[name]
	if f == nil {
		fmt.Fprintf(os.Stderr, "no function %q\n", name)
		os.Exit(2)
	}
	if err := f(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Self returns the command that runs a function of [Main] in another process.
func Self(function string, args ...string) (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), variable+"="+function)
	return cmd, nil
}

// A Process is a command that was started.
type Process struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
	wait  func() error
}

// Start starts a command. Its standard error is that of this process, unless it is set. Its
// standard output is for Line, unless it is set. The caller has to call Wait or Kill.
func Start(cmd *exec.Cmd) (*Process, error) {
	if cmd.Stderr == nil {
		cmd.Stderr = os.Stderr
	}
	if _, err := cmd.StdinPipe(); err != nil { // Wait closes it
		return nil, err
	}
	var out io.Reader = strings.NewReader("")
	if cmd.Stdout == nil {
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		out = pipe
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &Process{cmd, bufio.NewScanner(out), sync.OnceValue(cmd.Wait)}, nil
}

// New starts a command, which is killed when the test ends.
func New(tb testing.TB, cmd *exec.Cmd) *Process {
	tb.Helper()
	p, err := Start(cmd)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(p.Kill)
	return p
}

// NewSelf starts a command of [Self], which is killed when the test ends.
func NewSelf(tb testing.TB, function string, args ...string) *Process {
	tb.Helper()
	cmd, err := Self(function, args...)
	if err != nil {
		tb.Fatal(err)
	}
	return New(tb, cmd)
}

// Line waits for the next line of the standard output. It returns false at its end.
func (p *Process) Line() (string, bool) {
	ok := p.lines.Scan()
	return p.lines.Text(), ok
}

// Expect waits for the next line, and ends the test if it is another one.
func (p *Process) Expect(tb testing.TB, want string) {
	tb.Helper()
	if line, ok := p.Line(); !ok || line != want {
		tb.Fatalf("the process says %q, want %q: %v", line, want, p.lines.Err())
	}
}

// Wait waits until the process has exited. What it says must have been read.
func (p *Process) Wait() error { return p.wait() }

// Kill kills the process, and waits until it has exited.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	_ = p.wait()
}
