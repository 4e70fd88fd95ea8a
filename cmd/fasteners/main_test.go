package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/worker"
)

const (
	strictVar = "FASTENERS_TEST_STRICT" // in CI, where nothing may be missing
	binaryVar = "FASTENERS_TEST_BINARY" // the program to test, where it cannot be built
	toolVar   = "FASTENERS_TEST_TOOL"   // makes the test binary a tool for scripts
	breakVar  = worker.BreakVar         // makes check and stress use broken locks
)

var update = flag.Bool("update", false, "write the manual pages")

// program is the directory of the program to test, which is called fasteners there.
var program string

func TestMain(m *testing.M) {
	if tool := tools[os.Getenv(toolVar)]; tool != nil {
		tool(os.Args[1:])
		os.Exit(0)
	}
	flag.Parse()
	// The processes that tests start shall not inherit signals that are ignored
	// here, as nohup does and shells that start something in the background.
	// Those for which there is a handler they do not.
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "fasteners")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		program = dir
		if err := build(filepath.Join(dir, "fasteners"+exe)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

func build(binary string, flags ...string) error {
	if built := os.Getenv(binaryVar); built != "" {
		content, err := os.ReadFile(built)
		if err != nil {
			return err
		}
		return os.WriteFile(binary, content, 0o777)
	}
	cmd := exec.Command("go", append(append([]string{"build"}, flags...), "-o", binary, ".")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // it starts faster without the dynamic linker
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

var exe = filepath.Ext(os.Args[0])

func init() {
	if exe != ".exe" {
		exe = ""
	}
}

// sharedProgram returns the path of the program.
func sharedProgram() string { return filepath.Join(program, "fasteners"+exe) }

// command returns a command that runs the program.
func command(args ...string) *exec.Cmd {
	return exec.Command(sharedProgram(), args...)
}

// tools are programs that the tests run under a lock, the same on every system.
var tools = map[string]func(args []string){
	"hold":   holdTool,
	"append": appendTool,
}

// holdTool says "held" and the ID of its process, and exits when its input ends.
func holdTool([]string) {
	fmt.Println("held", os.Getpid())
	for {
		if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
			return
		}
	}
}

// appendTool appends lines to a file, not in one step.
func appendTool(args []string) {
	content, _ := os.ReadFile(args[0])
	_ = os.WriteFile(args[0], append(content, "line\n"...), 0o666)
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

// until waits until check is true.
func until(check func() bool) {
	for !check() {
		time.Sleep(time.Millisecond)
	}
}

// waiters returns how many processes wait for the lock, as far as that is known.
func waiters(path string) int {
	holders, _ := fasteners.NewInterProcessLock(path).Holders()
	return len(slices.DeleteFunc(holders, func(h fasteners.Holder) bool { return !h.Waiting }))
}

// python returns a Python that has fasteners (Debian: python3-fasteners), or
// nothing.
var python = sync.OnceValue(func() string {
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(name, "-c", "import fasteners").Run() == nil {
			return name
		}
	}
	return ""
})

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", program+string(filepath.ListSeparator)+os.Getenv("PATH"))
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("PYTHON", python())
			return nil
		},
		Condition: func(cond string) (bool, error) {
			has := false
			switch cond {
			case "python":
				has = python() != ""
			case "man":
				_, err := exec.LookPath(cond)
				has = err == nil
			default:
				return false, fmt.Errorf("no condition %s", cond)
			}
			if !has && os.Getenv(strictVar) != "" && runtime.GOOS != "windows" {
				return false, fmt.Errorf("missing: %s", cond)
			}
			return has, nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// status STATUS PROGRAM ARG... runs a program and checks its exit
			// status.
			"status": func(ts *testscript.TestScript, _ bool, args []string) {
				err := ts.Exec(args[1], args[2:]...)
				got := 0
				if e, ok := err.(*exec.ExitError); ok {
					got = e.ExitCode()
				} else if err != nil {
					ts.Fatalf("%v", err)
				}
				if want, _ := strconv.Atoi(args[0]); got != want {
					ts.Fatalf("exit status is %d, want %d", got, want)
				}
			},
			// old FILE makes a file older than a year.
			"old": func(ts *testscript.TestScript, _ bool, args []string) {
				then := time.Now().AddDate(-1, -1, 0)
				ts.Check(os.Chtimes(ts.MkAbs(args[0]), then, then))
			},
		},
	})
}
