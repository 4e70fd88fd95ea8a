package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/cli"
	"github.com/go-fasteners/fasteners/internal/stress"
)

// A runProcess is the program, with a tool as its command. It is killed when
// the test ends.
type runProcess struct {
	t      testing.TB
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr *bufio.Reader
}

func startProcess(t testing.TB, cmd *exec.Cmd) *runProcess {
	t.Helper()
	if cmd.Env == nil {
		cmd.Env = append(os.Environ(), toolVar+"="+"hold")
	}
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	stderr, err := cmd.StderrPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return &runProcess{t, cmd, in, bufio.NewReader(out), bufio.NewReader(stderr)}
}

// startRun starts run with the tool hold, which holds the lock until its input
// ends.
func startRun(t testing.TB, path string, flags ...string) *runProcess {
	t.Helper()
	args := append(append([]string{"run"}, flags...), path, "--", os.Args[0])
	return startProcess(t, command(args...))
}

// expect waits for a line of the output that contains the text.
func (p *runProcess) expect(from *bufio.Reader, text string) string {
	p.t.Helper()
	line, err := from.ReadString('\n')
	must(p.t, err)
	if !strings.Contains(line, text) {
		p.t.Fatalf("process says %q, want %q", line, text)
	}
	return line
}

// held waits until the tool runs, and returns the ID of its process.
func (p *runProcess) held() (pid int) {
	p.t.Helper()
	if _, err := fmt.Sscanf(p.expect(p.out, "held"), "held %d", &pid); err != nil {
		p.t.Fatal(err)
	}
	return pid
}

// end ends the input of the process and checks its exit status.
func (p *runProcess) end(status int) {
	p.t.Helper()
	p.in.Close()
	p.exit(status)
}

func (p *runProcess) exit(status int) {
	p.t.Helper()
	io.Copy(io.Discard, p.out)
	io.Copy(io.Discard, p.stderr)
	p.cmd.Wait()
	if got := p.cmd.ProcessState.ExitCode(); got != status {
		p.t.Errorf("exit status is %v, want %d", p.cmd.ProcessState, status)
	}
}

func lockPath(t testing.TB) string { return filepath.Join(t.TempDir(), "lock") }

// isFree reports whether the lock can be acquired.
func isFree(t testing.TB, path string) bool {
	t.Helper()
	lock := fasteners.NewInterProcessLock(path)
	ok, err := lock.TryAcquire()
	must(t, err)
	if ok {
		must(t, lock.Release())
	}
	return ok
}

// A wait that takes longer than a second tells for whom, unless it shall be quiet.
func TestWaitIsTold(t *testing.T) {
	path := lockPath(t)
	holder := startRun(t, path)
	holder.held()
	quiet := startRun(t, path, "-q")
	if runtime.GOOS == "linux" {
		until(func() bool { return waiters(path) == 1 }) // so that it waits longer than the other one
	}
	waiter := startRun(t, path)
	waiter.expect(waiter.stderr, "fasteners: waiting for "+path+", held by ")
	quiet.in.Close() // each ends as soon as it has the lock
	waiter.in.Close()
	holder.end(0)
	if text, _ := io.ReadAll(quiet.stderr); len(text) > 0 {
		t.Errorf("quiet process says %q", text)
	}
	quiet.exit(0)
	waiter.exit(0)
}

// Processes that acquire the same two locks in different orders do not wait for
// each other.
func TestSeveralLocks(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	locks := []string{filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "c")}
	var wg sync.WaitGroup
	var written atomic.Int64
	for i := range 4 {
		wg.Go(func() {
			for range stress.Rounds() {
				written.Add(1)
				cmd := command("run", "--lock", locks[i%3], "--lock", locks[(i+1)%3], "--lock", locks[(i+2)%3],
					"--", os.Args[0], log)
				cmd.Env = append(os.Environ(), toolVar+"=append")
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%v: %s", err, out)
				}
			}
		})
	}
	wg.Wait()
	content, err := os.ReadFile(log)
	must(t, err)
	if got := int64(strings.Count(string(content), "\n")); got != written.Load() {
		t.Errorf("%d lines were written, want %d", got, written.Load())
	}
}

// The lock is free when the command has been killed, and the exit status tells
// that.
func TestCommandIsKilled(t *testing.T) {
	path := lockPath(t)
	p := startRun(t, path)
	child, err := os.FindProcess(p.held())
	must(t, err)
	must(t, child.Kill())
	killed := 1
	if runtime.GOOS != "windows" {
		killed = cli.ExitSignalBase + 9
	}
	p.exit(killed)
	if !isFree(t, path) {
		t.Error("lock is held")
	}
}

// If the program is killed, the command keeps the lock, or is killed too.
func TestProgramIsKilled(t *testing.T) {
	path := lockPath(t)
	p := startRun(t, path)
	p.held()
	must(t, p.cmd.Process.Kill())
	p.cmd.Process.Wait()
	if runtime.GOOS == "linux" {
		if isFree(t, path) {
			t.Error("lock is free while the command runs")
		}
		p.in.Close()
	}
	if _, err := io.Copy(io.Discard, p.out); err != nil { // until the command has ended
		t.Log(err)
	}
	until(func() bool { return isFree(t, path) })
}

// A lock file that others wait for is not removed.
func TestRemoveLeavesWaiters(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the system does not tell who waits")
	}
	path := lockPath(t)
	holder := startRun(t, path, "--remove")
	holder.held()
	waiter := startRun(t, path, "--remove")
	until(func() bool { return waiters(path) == 1 })
	holder.end(0)
	waiter.held()
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
	waiter.end(0)
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("lock file is still there: %v", err)
	}
}

// A list that is watched is printed again and again.
func TestWatch(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the system does not tell who holds a lock")
	}
	path := lockPath(t)
	holder := startRun(t, path)
	holder.held()
	list := startProcess(t, command("list", "--watch", filepath.Dir(path)))
	for range 2 {
		list.expect(list.out, path+": held by process ")
	}
	holder.end(0)
}

// Status and list tell who waits.
func TestWaitersAreListed(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the system does not tell who waits")
	}
	path := lockPath(t)
	holder := startRun(t, path)
	holder.held()
	waiter := startRun(t, path)
	until(func() bool { return waiters(path) == 1 })
	for _, args := range [][]string{{"status", path}, {"list", filepath.Dir(path)}} {
		out, _ := command(args...).Output()
		want := fmt.Sprintf("\n\tprocess %d (fasteners run /", waiter.cmd.Process.Pid)
		if !strings.Contains(string(out), want) || !strings.Contains(string(out), "waits") {
			t.Errorf("%v prints %q, want a line with %q", args, out, want)
		}
		var states []struct{ Holders, Waiters []struct{ PID int } }
		out, _ = command(append(args, "--json")...).Output()
		must(t, json.Unmarshal(out, &states))
		if len(states) != 1 || len(states[0].Holders) != 1 || len(states[0].Waiters) != 1 ||
			states[0].Waiters[0].PID != waiter.cmd.Process.Pid ||
			states[0].Holders[0].PID != holder.cmd.Process.Pid {
			t.Errorf("%v prints %s", args, out)
		}
	}
	waiter.in.Close()
	holder.end(0)
	waiter.exit(0)
}

// Nobody loses the lock by a sweep, whenever it comes.
func TestSweepAmongUsers(t *testing.T) {
	dir := t.TempDir()
	log, path := filepath.Join(t.TempDir(), "log"), filepath.Join(dir, "a.lock")
	const enough = 5 // removals
	var users, sweeper sync.WaitGroup
	var swept, written atomic.Int64
	for range 2 {
		users.Go(func() {
			for swept.Load() < enough {
				time.Sleep(rand.N(10 * time.Millisecond)) // or the lock would hardly be free
				written.Add(1)
				cmd := command("run", path, "--", os.Args[0], log)
				cmd.Env = append(os.Environ(), toolVar+"=append")
				if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
					t.Errorf("%v: %s", err, out) // it would tell if it had lost the lock
				}
			}
		})
	}
	stop := make(chan struct{})
	sweeper.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			out, err := command("sweep", dir).Output()
			if err != nil && runtime.GOOS != "windows" {
				t.Error(err)
			}
			swept.Add(int64(strings.Count(string(out), "\n")))
		}
	})
	users.Wait()
	close(stop)
	sweeper.Wait()
	content, err := os.ReadFile(log)
	must(t, err)
	if got := int64(strings.Count(string(content), "\n")); got != written.Load() {
		t.Errorf("%d lines were written, want %d", got, written.Load())
	}
}
