//go:build unix

package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/cli"
)

func TestInterrupt(t *testing.T) {
	program := sharedProgram()

	t.Run("check", func(t *testing.T) {
		dir := t.TempDir()
		cmd := exec.Command(program, "check", dir)
		cmd.Stdout = io.Discard
		progress, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(progress)
		if _, err := lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(lines); err != nil || strings.Contains(string(rest), "fasteners:") {
			t.Errorf("%v, %s", err, rest)
		}
		finishForTest(t, cmd, cmd.Wait).mustHaveStatus(t, cli.ExitSignalBase+int(syscall.SIGINT))
		mustBeEmpty(t, dir)
	})
	t.Run("stress", func(t *testing.T) {
		dir := t.TempDir()
		var out bytes.Buffer
		cmd := exec.Command(program, "stress", "--duration", "1h", "--removals=false", dir)
		cmd.Stdout = &out
		startStress(t, cmd, dir)
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		finishForTest(t, cmd, cmd.Wait).mustHaveStatus(t, cli.ExitSignalBase+int(syscall.SIGINT))
		if !strings.Contains(out.String(), "\nviolations    0\n") {
			t.Errorf("there is no table:\n%s", &out)
		}
		mustBeEmpty(t, dir)
	})
}

// TestClosedPipe runs the commands as in "fasteners check . | head -n 0".
func TestClosedPipe(t *testing.T) {
	program := buildForTest(t)
	for _, args := range [][]string{{"check"}, {"check", "--json"}, {"stress", "--duration", "1s"}} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		dir := t.TempDir()
		cmd := exec.Command(program, append(args, dir)...)
		cmd.Stdout = w
		_ = cmd.Run()
		w.Close()
		if cmd.ProcessState == nil || !cmd.ProcessState.Exited() {
			t.Errorf("%v: %v", args, cmd.ProcessState)
		}
		mustBeEmpty(t, dir)
	}
}

// startStress starts the command, and waits until it has a lock file.
func startStress(t *testing.T, cmd *exec.Cmd, dir string) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for {
		if found, _ := filepath.Glob(filepath.Join(dir, ".*", "lock")); len(found) > 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// TestWorkersEnd checks that no worker outlives the process that has started
// it, not even if that is killed.
func TestWorkersEnd(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(sharedProgram(), "stress", "--duration", "1h", "--removals=false", dir)
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir()) // the board stays there
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	startStress(t, cmd, dir)
	group := -cmd.Process.Pid
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for !errors.Is(syscall.Kill(group, 0), syscall.ESRCH) {
		time.Sleep(time.Millisecond)
	}
}
