package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// buildForTest builds the program in another way, for a test and its subtests.
func buildForTest(t *testing.T, flags ...string) string {
	t.Helper()
	if os.Getenv(binaryVar) != "" {
		t.Skip("needs another build of the program")
	}
	binary := filepath.Join(t.TempDir(), "fasteners"+exe)
	must(t, build(binary, flags...))
	return binary
}

// outcome is what a command has printed, and its status.
type outcome struct {
	status         int
	stdout, stderr bytes.Buffer
}

func runForTest(t *testing.T, program string, env []string, args ...string) *outcome {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), env...)
	return finishForTest(t, cmd, cmd.Run)
}

// finishForTest calls run, or another function that waits for the command to end.
func finishForTest(t *testing.T, cmd *exec.Cmd, run func() error) *outcome {
	t.Helper()
	o := new(outcome)
	if cmd.Stdout == nil {
		cmd.Stdout, cmd.Stderr = &o.stdout, &o.stderr
	}
	err := run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	o.status = cmd.ProcessState.ExitCode()
	return o
}

func (o *outcome) mustHaveStatus(t *testing.T, want int) {
	t.Helper()
	if o.status != want {
		t.Fatalf("status %d, want %d\n%s\n%s", o.status, want, &o.stdout, &o.stderr)
	}
}

func (o *outcome) decode(t *testing.T, v any) {
	t.Helper()
	d := json.NewDecoder(&o.stdout)
	if err := d.Decode(v); err != nil {
		t.Fatal(err)
	}
	if d.More() {
		t.Error("there is more than one JSON document")
	}
}

func mustBeEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("%s is left", e.Name())
	}
}
