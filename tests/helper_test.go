//go:build unix || windows

// Package tests has the tests and benchmarks of what users of the file locks see, by subject.
package tests

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	// helperVar makes the test binary run the helper of that name instead of the tests.
	helperVar = "FASTENERS_TEST_HELPER"

	// strictVar is set in CI, where no test may be skipped because something is not installed.
	strictVar = "FASTENERS_TEST_STRICT"

	// emulatorVar names the program that runs the test binary if the system cannot run it itself.
	// Helpers are started in the same way.
	emulatorVar = "FASTENERS_TEST_EMULATOR"
)

// A helper is a function that a test runs in another process. It communicates with the test
// through its standard input and output, in lines. The process exits when the function returns,
// and prints the error.
type helper struct {
	name string
	run  func(in *bufio.Reader, args []string) error
}

var helpers = map[string]*helper{}

func newHelper(name string, run func(in *bufio.Reader, args []string) error) *helper {
	if helpers[name] != nil {
		panic("two helpers are called " + name)
	}
	h := &helper{name, run}
	helpers[name] = h
	return h
}

// setUp prepares the process for the tests of the present system. It runs in helpers too.
var setUp = func() {}

func TestMain(m *testing.M) {
	setUp()
	name := os.Getenv(helperVar)
	if name == "" {
		os.Exit(m.Run())
	}
	h := helpers[name]
	if h == nil {
		fmt.Fprintf(os.Stderr, "no helper %q\n", name)
		os.Exit(2)
	}
	os.Unsetenv(helperVar)
	if err := h.run(bufio.NewReader(os.Stdin), os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "helper %s: %v\n", name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// A process is a helper, or a program that communicates in the same way. It is killed when the
// test ends. If the test binary dies, the standard input of the process ends.
type process struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startHelper(t testing.TB, h *helper, args ...string) *process {
	t.Helper()
	return start(t, helperCommand(h, args...))
}

// helperCommand returns the command that runs a helper.
func helperCommand(h *helper, args ...string) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	cmd := exec.Command(exe, args...)
	if emulator := os.Getenv(emulatorVar); emulator != "" {
		cmd = exec.Command(emulator, append([]string{exe}, args...)...)
	}
	cmd.Env = append(os.Environ(), helperVar+"="+h.name)
	return cmd
}

func start(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	in, err := cmd.StdinPipe()
	must(t, err)
	p := startWithInput(t, cmd)
	p.in = in
	return p
}

// startWithInput starts a process whose standard input the caller has set.
func startWithInput(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	p := &process{t: t, cmd: cmd, out: bufio.NewReader(out)}
	t.Cleanup(p.kill)
	return p
}

func (p *process) say(line string) {
	p.t.Helper()
	_, err := io.WriteString(p.in, line+"\n")
	must(p.t, err)
}

// line waits for the next line without a timeout: if the process hangs, the timeout of the test
// binary dumps all goroutines.
func (p *process) line() string {
	p.t.Helper()
	s, err := p.out.ReadString('\n')
	must(p.t, err)
	return strings.TrimSpace(s)
}

// number waits for a line that consists of a number.
func (p *process) number() int {
	p.t.Helper()
	n, err := strconv.Atoi(p.line())
	must(p.t, err)
	return n
}

func (p *process) expect(want ...string) {
	p.t.Helper()
	for _, want := range want {
		if got := p.line(); got != want {
			p.t.Fatalf("process says %q, want %q", got, want)
		}
	}
}

// finish ends the input of the process and waits for it to exit without an error.
func (p *process) finish() {
	p.t.Helper()
	p.in.Close()
	io.Copy(io.Discard, p.out)
	must(p.t, p.cmd.Wait())
}

// kill ends the process if it still runs, and waits until it can do nothing more.
func (p *process) kill() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

// exitAtEOF ends a helper whose test binary has ended before it, which is when the helper hangs: it
// tells what its goroutines wait for.
func exitAtEOF(in *bufio.Reader) {
	_, _ = io.Copy(io.Discard, in)
	_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
	os.Exit(3)
}

// cancelAtEOF returns a context that is canceled when the input of the helper ends.
func cancelAtEOF(in *bufio.Reader) context.Context {
	ctx, cancel := context.WithCancel(background)
	go func() {
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	return ctx
}

// holdHelper acquires a lock, and releases it when it is told to. While it holds the lock, it can
// be told to try to acquire it once more. Its arguments are a path, the name of a variant, and a
// wait mode.
var holdHelper = newHelper("hold", func(in *bufio.Reader, args []string) error {
	v := variantNamed(args[0], args[1])
	ctx, cancel := waitContext(args[2])
	defer cancel()
	fmt.Println("waiting")
	if err := v.acquire(ctx); err != nil {
		return err
	}
	fmt.Println("held")
	for {
		switch line, err := in.ReadString('\n'); {
		case err != nil:
			return nil // the test has ended
		case line == "try\n":
			ok, err := v.try()
			if ok {
				err = v.release()
			}
			if err != nil {
				return err
			}
			fmt.Println(ok)
		default:
			if err := v.release(); err != nil {
				return err
			}
			fmt.Println("released")
			return nil
		}
	}
})

// startHolder starts a process that holds the lock on path.
func startHolder(t testing.TB, path, variant string) *process {
	t.Helper()
	p := startWaiter(t, path, variant, "background")
	p.expect("held")
	return p
}

// startWaiter starts a process that acquires the lock on path, and says "held" when it holds it.
func startWaiter(t testing.TB, path, variant, waitMode string) *process {
	t.Helper()
	p := startHelper(t, holdHelper, path, variant, waitMode)
	p.expect("waiting")
	return p
}

// release makes the holder release the lock.
func (p *process) release() {
	p.t.Helper()
	p.say("release")
	p.expect("released")
}

// tryAgain makes the holder try to acquire the lock once more, and reports whether it did.
func (p *process) tryAgain() bool {
	p.t.Helper()
	p.say("try")
	ok, err := strconv.ParseBool(p.line())
	must(p.t, err)
	return ok
}

var tryHelper = newHelper("try", func(_ *bufio.Reader, args []string) error {
	ok, err := variantNamed(args[0], args[1]).try()
	if err != nil {
		return err
	}
	fmt.Println(ok)
	return nil
})

// mustTryInProcess tries to acquire the lock in another process, and checks the outcome.
func mustTryInProcess(t testing.TB, path, variant string, want bool) {
	t.Helper()
	p := startHelper(t, tryHelper, path, variant)
	p.expect(strconv.FormatBool(want))
	p.kill() // with the race detector it would need a second to exit
}

// A group runs goroutines that can fail.
type group struct {
	wg  sync.WaitGroup
	mu  sync.Mutex
	err error
}

func (g *group) Go(f func() error) {
	g.wg.Go(func() {
		if err := f(); err != nil {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.err = errors.Join(g.err, err)
		}
	})
}

// Wait waits for all goroutines and returns their errors.
func (g *group) Wait() error {
	g.wg.Wait()
	return g.err
}

var background = context.Background()

// cancelable returns a context that can be canceled, but is not before the test ends. How a
// goroutine waits depends on whether its context can be canceled.
func cancelable(t testing.TB) context.Context {
	ctx, cancel := context.WithCancel(background)
	t.Cleanup(cancel)
	return ctx
}

// waitModes are the kinds of context that tests wait with.
var waitModes = []string{"background", "cancelable"}

func waitContext(mode string) (context.Context, context.CancelFunc) {
	switch mode {
	case "background":
		return background, func() {}
	case "cancelable":
		return context.WithCancel(background)
	}
	panic("no wait mode " + mode)
}

// testContext returns a context of the given wait mode that is not done before the test ends.
func testContext(t testing.TB, waitMode string) context.Context {
	ctx, cancel := waitContext(waitMode)
	t.Cleanup(cancel)
	return ctx
}

// usage is what a process uses. What the system does not report is 0.
type usage struct {
	goroutines, descriptors int
	lockFile                int // descriptors of the lock file
}

// waitForUsage waits until the process uses no more than before. It hangs if a lock has left
// something behind. The wait is for what does not belong to the lock, such as timers.
func waitForUsage(path string, before usage) usage {
	for {
		u := resources(path)
		// The runtime opens two descriptors to wait for files, and keeps them.
		if u.goroutines <= before.goroutines && u.descriptors <= before.descriptors+2 && u.lockFile <= before.lockFile {
			return u
		}
		time.Sleep(time.Millisecond)
	}
}

// lockPath returns the path of a lock file that does not exist yet.
func lockPath(t testing.TB) string {
	return filepath.Join(t.TempDir(), "lock")
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// skipOrFail skips the test because something is not available, or fails it in CI.
func skipOrFail(t testing.TB, missing string) {
	t.Helper()
	if os.Getenv(strictVar) != "" {
		t.Fatalf("missing: %s", missing)
	}
	t.Skipf("missing: %s", missing)
}

// checkError checks that err is an *fs.PathError with op and path that wraps target.
func checkError(t testing.TB, err error, op, path string, target error) {
	t.Helper()
	var pathErr *fs.PathError
	switch {
	case !errors.As(err, &pathErr):
		t.Errorf("error %v is not an *fs.PathError", err)
	case pathErr.Op != op || pathErr.Path != path:
		t.Errorf("error %v has op %q and path %q, want %q and %q", err, pathErr.Op, pathErr.Path, op, path)
	case !errors.Is(err, target):
		t.Errorf("error %v does not wrap %v", err, target)
	}
}
