//go:build unix

package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/cli"
)

func init() { tools["signals"] = signalsTool }

// signalsTool says which signals it gets, and exits with status 3 after SIGTERM.
func signalsTool([]string) {
	signals := make(chan os.Signal, 10)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGUSR1, unix.SIGHUP)
	fmt.Println("held", os.Getpid())
	for s := range signals {
		fmt.Println(unix.SignalName(s.(syscall.Signal)))
		if s == unix.SIGTERM {
			os.Exit(3)
		}
	}
}

func startSignals(t *testing.T, path string, flags ...string) *runProcess {
	t.Helper()
	cmd := command(append(append([]string{"run"}, flags...), path, "--", os.Args[0])...)
	cmd.Env = append(os.Environ(), toolVar+"=signals")
	p := startProcess(t, cmd)
	p.held()
	return p
}

func TestSignalsArePassedOn(t *testing.T) {
	p := startSignals(t, lockPath(t))
	for _, s := range []syscall.Signal{unix.SIGUSR1, unix.SIGINT, unix.SIGHUP, unix.SIGTERM} {
		must(t, p.cmd.Process.Signal(s))
		p.expect(p.out, unix.SignalName(s))
	}
	p.exit(3)
}

// A signal that is ignored at the start, as by nohup, stays so.
func TestIgnoredSignalIsNotPassedOn(t *testing.T) {
	cmd := command("run", lockPath(t), "--", os.Args[0])
	p := startProcess(t, &exec.Cmd{
		Path: "/bin/sh",
		Args: append([]string{"sh", "-c", `trap "" HUP; exec "$@"`, "sh"}, cmd.Args...),
		Env:  append(os.Environ(), toolVar+"=signals"),
	})
	p.held()
	for _, s := range []syscall.Signal{unix.SIGHUP, unix.SIGUSR1, unix.SIGTERM} {
		must(t, p.cmd.Process.Signal(s))
		if s != unix.SIGHUP {
			p.expect(p.out, unix.SignalName(s))
		}
	}
	p.exit(3)
}

// A command that does not end after a signal is killed.
func TestKillAfter(t *testing.T) {
	path := lockPath(t)
	p := startSignals(t, path, "--kill-after", "10ms")
	must(t, p.cmd.Process.Signal(unix.SIGINT))
	p.expect(p.out, "SIGINT")
	p.expect(p.stderr, "killing")
	p.exit(cli.ExitSignalBase + 9)
}

// The loss of the lock is told, and ends the command if that is wanted.
func TestLostLock(t *testing.T) {
	path := lockPath(t)
	p := startRun(t, path)
	p.held()
	must(t, os.Remove(path))
	p.expect(p.stderr, "fasteners: "+path+": lock file was removed or replaced")
	p.end(0)

	p = startSignals(t, path, "--kill-after", "1h")
	must(t, os.Remove(path))
	p.expect(p.stderr, "removed or replaced")
	p.expect(p.out, "SIGTERM")
	p.exit(3)
}

// A signal ends a wait, and the process in the way that its parent expects.
func TestSignalWhileWaiting(t *testing.T) {
	path := lockPath(t)
	holder := startRun(t, path)
	holder.held()
	for _, s := range []syscall.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP} {
		waiter := startRun(t, path)
		waiter.expect(waiter.stderr, "waiting for")
		must(t, waiter.cmd.Process.Signal(s))
		waiter.cmd.Wait()
		if got := waiter.cmd.ProcessState.Sys().(syscall.WaitStatus); !got.Signaled() || got.Signal() != s {
			t.Errorf("waiter has ended with %v, want %v", waiter.cmd.ProcessState, s)
		}
	}
	// The runtime of Go would print the stacks of all goroutines.
	waiter := startRun(t, path)
	waiter.expect(waiter.stderr, "waiting for")
	must(t, waiter.cmd.Process.Signal(unix.SIGQUIT))
	waiter.exit(cli.ExitSignalBase + 3)
	holder.end(0)
}

// Where the command cannot inherit the lock, it is killed with the program.
func TestProcessOwnedLock(t *testing.T) {
	binary := buildForTest(t, "-tags", "processowned")
	path := lockPath(t)
	p := startProcess(t, exec.Command(binary, "run", path, "--", os.Args[0]))
	p.held()
	if isFree(t, path) {
		t.Error("lock is free")
	}
	must(t, p.cmd.Process.Kill())
	p.cmd.Process.Wait()
	io.Copy(io.Discard, p.out) // until the command has ended, although its input has not
	if !isFree(t, path) {
		t.Error("lock is held")
	}
	p = startProcess(t, exec.Command(binary, "run", path, "--", os.Args[0]))
	p.held()
	p.end(0)
	err := exec.Command(binary, "run", "-F", path, "true").Run()
	if e, ok := err.(*exec.ExitError); !ok || e.ExitCode() != cli.ExitSystem {
		t.Errorf("replacing the program: %v", err)
	}
}

// A terminal is a shell with job control on a terminal.
type terminal struct {
	t    *testing.T
	pty  *os.File
	seen strings.Builder
}

func newTerminal(t *testing.T, env ...string) *terminal {
	t.Helper()
	shell := exec.Command("bash", "--norc", "--noediting", "-i")
	shell.Env = append(os.Environ(),
		"PATH="+program+":"+os.Getenv("PATH"), "PS1=", "TERM=xterm", "NO_COLOR=")
	shell.Env = append(shell.Env, env...)
	shell.Dir = t.TempDir()
	f, err := pty.StartWithSize(shell, &pty.Winsize{Rows: 24, Cols: 200})
	if err != nil {
		skipOrFail(t, "bash")
	}
	term := &terminal{t: t, pty: f}
	t.Cleanup(func() {
		shell.Process.Kill()
		shell.Wait()
		f.Close()
	})
	term.run("stty -echo; set +o history; echo re''ady", "ready")
	return term
}

// quote quotes a path for the shell.
func quote(path string) string { return "'" + path + "'" }

// run types a command and waits for a text.
func (term *terminal) run(command, want string) {
	term.t.Helper()
	term.typeKeys(command + "\n")
	term.expect(want)
}

func (term *terminal) typeKeys(keys string) {
	term.t.Helper()
	_, err := io.WriteString(term.pty, keys)
	must(term.t, err)
}

// expect waits for a text behind what was expected before, and returns what
// came until then.
func (term *terminal) expect(want string) (before string) {
	term.t.Helper()
	buf := make([]byte, 1)
	for {
		text := term.seen.String()
		if i := strings.Index(text, want); i >= 0 {
			term.seen.Reset()
			return text[:i]
		}
		if _, err := term.pty.Read(buf); err != nil {
			term.t.Fatalf("terminal shows %q, want %q", text, want)
		}
		term.seen.Write(buf)
	}
}

// On a terminal the keys for signals go to the command, once, and the shell's
// job control works.
func TestTerminal(t *testing.T) {
	term := newTerminal(t, toolVar+"=signals")
	term.run("fasteners run l -- "+quote(os.Args[0]), "held ")
	pid, err := strconv.Atoi(strings.TrimSpace(term.expect("\n")))
	must(t, err)
	term.typeKeys("\x03")
	term.expect("SIGINT")
	term.typeKeys("\x1a")
	if between := term.expect("Stopped"); strings.Contains(between, "SIGINT") {
		t.Error("the command got the signal twice")
	}
	term.run("fasteners run -n l true; echo status $?", "status 75")
	term.run("kill -INT %1; bg", "fasteners")
	term.expect("SIGINT")
	term.run("fg", "fasteners")
	until(func() bool { // the shell says this before it does that
		group, err := unix.IoctlGetInt(int(term.pty.Fd()), unix.TIOCGPGRP)
		must(t, err)
		own, err := unix.Getpgid(pid)
		must(t, err)
		return group == own
	})
	term.typeKeys("\x03")
	term.expect("SIGINT")
	term.typeKeys("\x1a")
	term.expect("Stopped")
	term.run("kill -TERM %1; bg; wait %1; echo status $?", "SIGTERM")
	term.expect("status 3")
	term.run("fasteners run -n l true; echo status $?", "status 0")
}

// A command that has left the process group gets the signals of the keys from
// the program.
func TestTerminalOfOtherGroup(t *testing.T) {
	if _, err := exec.LookPath("setsid"); err != nil {
		skipOrFail(t, "setsid")
	}
	term := newTerminal(t, toolVar+"=signals")
	term.run("fasteners run l -- setsid "+quote(os.Args[0])+"; echo status $?", "held ")
	pid, err := strconv.Atoi(strings.TrimSpace(term.expect("\n")))
	must(t, err)
	term.typeKeys("\x03")
	term.expect("SIGINT")
	must(t, unix.Kill(pid, unix.SIGTERM))
	term.expect("status 3")
}

// A wait is shown in one line, which disappears; but not on a terminal that
// cannot do that.
func TestWaitOnTerminal(t *testing.T) {
	term := newTerminal(t)
	path := filepath.Join(t.TempDir(), "l")
	holder := startRun(t, path)
	holder.held()
	term.typeKeys("fasteners run " + quote(path) + " echo do''ne\n")
	term.expect("\r\x1b[Kfasteners: waiting for " + path + ", held by process")
	term.expect("\r\x1b[Kfasteners: waiting for ")
	holder.end(0)
	term.expect("\r\x1b[Kdone")

	for _, variable := range []string{"TERM=dumb", "NO_COLOR=1"} {
		holder = startRun(t, path)
		holder.held()
		term.typeKeys(variable + " fasteners run " + quote(path) + " echo do''ne\n")
		if before := term.expect("waiting for "); strings.Contains(before, "\x1b[K") {
			t.Errorf("with %s the terminal shows %q", variable, before)
		}
		holder.end(0)
		if before := term.expect("done"); strings.Contains(before, "\x1b[K") {
			t.Errorf("with %s the terminal shows %q", variable, before)
		}
	}
}
