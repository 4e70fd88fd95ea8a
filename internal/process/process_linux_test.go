package process

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What the name of a program contains is not taken for another field.
func TestParseStat(t *testing.T) {
	const rest = " 1 2 3 0 -1 4194304 1 0 0 0 5 6 0 0 20 0 7 0 12345 1000 10 18446744073709551615 0"
	for _, name := range []string{"sh", "a b", ") Z 1 2 (", "a) R\n 1", ""} {
		st, ok := parseStat([]byte("4711 (" + name + ") S" + rest + "\n"))
		if want := (stat{'S', 7, 123450 * time.Millisecond}); !ok || st != want {
			t.Errorf("%q: %+v, %t, want %+v", name, st, ok, want)
		}
	}
	for _, line := range []string{"", "4711", "4711 (sh)", "4711 (sh) S", "4711 (sh) S" + strings.ReplaceAll(rest, "12345", "x"),
		"4711 (sh) S" + strings.ReplaceAll(rest, " 7 ", " x "), "4711 (sh) SS" + rest} {
		if st, ok := parseStat([]byte(line)); ok {
			t.Errorf("%q: %+v", line, st)
		}
	}
}

// A process that was started after a lock was taken is not the one that took it, even if it has the
// same PID.
func TestExisted(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for after, want := range map[time.Duration]bool{
		time.Hour: true, 0: true, -time.Second / 2: true, -time.Minute: false, -100 * 24 * time.Hour: false,
	} {
		if got := Existed(cmd.Process.Pid, now.Add(after)); got != want {
			t.Errorf("%v after its start, the process exists: %t", after, got)
		}
	}
	if !Existed(cmd.Process.Pid, time.Time{}) {
		t.Error("the process does not exist")
	}

	// It is a zombie until Wait.
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for st, ok := readStat(cmd.Process.Pid); ok && st.state != 'Z'; st, ok = readStat(cmd.Process.Pid) { // until it is dead
		time.Sleep(time.Millisecond)
	}
	if Existed(cmd.Process.Pid, now) && areListed() {
		t.Error("a process that is dead exists")
	}
	_ = cmd.Wait()
}

// An argument can be of any length, but no program has such a name.
func TestLongCommand(t *testing.T) {
	const name = "a-name-of-16-bytes"
	path := filepath.Join(t.TempDir(), name)
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip(err)
	}
	program, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, program, 0o755); err != nil {
		t.Fatal(err)
	}
	for arg, want := range map[string]string{
		name: name, name + "-and-more": name + "-and-more", name + strings.Repeat("x", 300): name[:15], "other": name[:15],
	} {
		cmd := exec.Command(path, "60")
		cmd.Args[0] = arg
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for line := []byte(nil); len(line) == 0; { // until it has its arguments, a moment after execve
			line, _ = os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid))
		}
		if got := Command(cmd.Process.Pid); got != want {
			t.Errorf("command is %q, want %q", got, want)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}
