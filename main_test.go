//go:build unix || windows

package fasteners_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
)

// The test binary is its own helper: with helperVar set it runs the helper of that
// name, registered beside the test that starts it, instead of the tests.
const helperVar = "FASTENERS_TEST_HELPER"

// strictVar is set in CI, where no test may be skipped for want of something.
const strictVar = "FASTENERS_TEST_STRICT"

// emulatorVar names the program that runs the test binary, where the system cannot run it
// by itself: its helpers are started in the same way.
const emulatorVar = "FASTENERS_TEST_EMULATOR"

// A helper talks to the test through its standard input and output, in lines. To return
// is to exit, and the error is printed.
type helper func(in *bufio.Reader, args []string) error

var helpers = map[string]helper{}

// setUp is what the system's tests want to do first, in helpers too.
var setUp = func() {}

func TestMain(m *testing.M) {
	setUp()
	name := os.Getenv(helperVar)
	if name == "" {
		code := m.Run()
		os.Remove(lockFile) // of the examples
		os.Exit(code)
	}
	h := helpers[name]
	if h == nil {
		fmt.Fprintf(os.Stderr, "no helper %q\n", name)
		os.Exit(2)
	}
	os.Unsetenv(helperVar)
	if err := h(bufio.NewReader(os.Stdin), os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "helper %s: %v\n", name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// A process is a helper, or a program that talks like one. It is killed when the test is
// over, and when the test binary dies its standard input ends.
type process struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startHelper(t testing.TB, name string, args ...string) *process {
	t.Helper()
	return start(t, helperCommand(name, args...))
}

// helperCommand returns the command that runs a helper.
func helperCommand(name string, args ...string) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	cmd := exec.Command(exe, args...)
	if emulator := os.Getenv(emulatorVar); emulator != "" {
		cmd = exec.Command(emulator, append([]string{exe}, args...)...)
	}
	cmd.Env = append(os.Environ(), helperVar+"="+name)
	return cmd
}

func start(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	p := &process{t, cmd, in, bufio.NewReader(out)}
	t.Cleanup(p.kill)
	return p
}

func (p *process) say(line string) {
	p.t.Helper()
	_, err := io.WriteString(p.in, line+"\n")
	must(p.t, err)
}

// line waits for the next line, however long that takes: a hang ends in a dump of all
// goroutines.
func (p *process) line() string {
	p.t.Helper()
	s, err := p.out.ReadString('\n')
	must(p.t, err)
	return strings.TrimSpace(s)
}

func (p *process) expect(want string) {
	p.t.Helper()
	if got := p.line(); got != want {
		p.t.Fatalf("process says %q, want %q", got, want)
	}
}

// finish ends the input of the process and waits for it to exit without an error.
func (p *process) finish() {
	p.t.Helper()
	p.in.Close()
	io.Copy(io.Discard, p.out)
	must(p.t, p.cmd.Wait())
}

// kill ends the process if it has not ended, so that it can do nothing more.
func (p *process) kill() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

// exitAtEnd ends a helper that hangs when the test that has started it is gone.
func exitAtEnd(in *bufio.Reader) {
	_, _ = io.Copy(io.Discard, in)
	os.Exit(3)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// missing skips the test, or fails it where nothing may be missing.
func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv(strictVar) != "" {
		t.Fatalf("missing: %s", what)
	}
	t.Skipf("missing: %s", what)
}

// A side is one way to lock a file.
type side struct {
	name    string
	shared  bool
	acquire func(context.Context) error
	try     func() (bool, error)
	release func() error
}

func exclusive(l *fasteners.InterProcessLock) side {
	return side{"exclusive", false, l.Acquire, l.TryAcquire, l.Release}
}

func reader(l *fasteners.InterProcessReaderWriterLock) side {
	return side{"read", true, l.AcquireReadLock, l.TryAcquireReadLock, l.ReleaseReadLock}
}

func writer(l *fasteners.InterProcessReaderWriterLock) side {
	return side{"write", false, l.AcquireWriteLock, l.TryAcquireWriteLock, l.ReleaseWriteLock}
}

// sides returns all ways to lock path, the last two through one handle.
func sides(path string, opts ...fasteners.Option) []side {
	rw := fasteners.NewInterProcessReaderWriterLock(path, opts...)
	return []side{exclusive(fasteners.NewInterProcessLock(path, opts...)), reader(rw), writer(rw)}
}

func sideNamed(path, name string) (side, error) {
	for _, s := range sides(path) {
		if s.name == name {
			return s, nil
		}
	}
	return side{}, fmt.Errorf("no side %q", name)
}

var background = context.Background()

// cancellable returns a context that could be done but will not be before the test is:
// the way of waiting depends on that.
func cancellable(t testing.TB) context.Context {
	ctx, cancel := context.WithCancel(background)
	t.Cleanup(cancel)
	return ctx
}

func (s side) mustAcquire(t testing.TB) {
	t.Helper()
	must(t, s.acquire(background))
}

func (s side) mustRelease(t testing.TB) {
	t.Helper()
	must(t, s.release())
}

// mustTry tries and fails the test if that has not the wanted outcome. What it gets it
// gives back.
func (s side) mustTry(t testing.TB, want bool) {
	t.Helper()
	got, err := s.try()
	must(t, err)
	if got != want {
		t.Fatalf("try to get the %s lock: %v, want %v", s.name, got, want)
	}
	if got {
		s.mustRelease(t)
	}
}

// goAcquire acquires in a goroutine, and checks for a moment that it has to wait.
func (s side) goAcquire(t testing.TB, ctx context.Context) <-chan error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- s.acquire(ctx) }()
	select {
	case err := <-done:
		t.Fatalf("got the %s lock at once (error %v), should have to wait", s.name, err)
	case <-time.After(10 * time.Millisecond):
	}
	return done
}

// checkError checks that err is a *fs.PathError of op and path, and is target.
func checkError(t testing.TB, err error, op, path string, target error) {
	t.Helper()
	var pathErr *fs.PathError
	switch {
	case !errors.As(err, &pathErr):
		t.Errorf("error %v is no *fs.PathError", err)
	case pathErr.Op != op || pathErr.Path != path:
		t.Errorf("error %v is of %s %s, want %s %s", err, pathErr.Op, pathErr.Path, op, path)
	case !errors.Is(err, target):
		t.Errorf("error %v is not %v", err, target)
	}
}

// checkSnippets checks that the Go snippets of a Markdown text stand in a program, one after
// another, whatever the indentation.
func checkSnippets(t *testing.T, markdown, program string) {
	t.Helper()
	flat := func(s string) string {
		var lines []string
		for line := range strings.Lines(s) {
			lines = append(lines, strings.TrimSpace(line))
		}
		return strings.Join(lines, "\n")
	}
	program = flat(program)
	snippets := strings.Split(markdown, "```go\n")[1:]
	if len(snippets) == 0 {
		t.Error("no snippets")
	}
	for _, s := range snippets {
		s, _, _ = strings.Cut(s, "```")
		if !strings.Contains(program, flat(strings.TrimSpace(s))) {
			t.Errorf("this is no example:\n%s", s)
		}
	}
}
