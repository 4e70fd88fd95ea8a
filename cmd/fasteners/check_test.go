package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/cli"
)

// A checkReport has what the tests look at of the document that check --json
// prints.
type checkReport struct {
	FileSystem struct{ Type string }
	Checks     []struct{ Name, Result, Means string }
	OK         bool
}

const checkCount = 7

func TestCheck(t *testing.T) {
	program := sharedProgram()
	t.Run("directory", func(t *testing.T) {
		dir := t.TempDir()
		checkSound(t, program, dir)
		mustBeEmpty(t, dir)
	})
	t.Run("tmpfs", func(t *testing.T) {
		if runtime.GOOS != "linux" {
			t.Skip("needs Linux")
		}
		dir, err := os.MkdirTemp("/dev/shm", "fasteners-test-")
		if err != nil {
			skipOrFail(t, "/dev/shm")
		}
		defer os.RemoveAll(dir)
		if kind := checkSound(t, program, dir).FileSystem.Type; kind != "tmpfs" {
			t.Errorf("type is %q", kind)
		}
	})
	t.Run("text", func(t *testing.T) {
		o := runForTest(t, program, nil, "check", t.TempDir())
		o.mustHaveStatus(t, 0)
		for _, want := range []string{"\npass  exclusion ", "\nLocks work in this directory"} {
			if !strings.Contains(o.stdout.String(), want) {
				t.Errorf("%q is missing in\n%s", want, &o.stdout)
			}
		}
		if n := strings.Count(o.stderr.String(), "\n"); n != checkCount {
			t.Errorf("%d lines of progress, want %d:\n%s", n, checkCount, &o.stderr)
		}
	})
	t.Run("no locks", func(t *testing.T) {
		dir := t.TempDir()
		o := runForTest(t, program, []string{breakVar + "=off"}, "check", "--json", dir)
		checkBroken(t, o)
		mustBeEmpty(t, dir)
		o = runForTest(t, program, []string{breakVar + "=off"}, "check", dir)
		o.mustHaveStatus(t, cli.ExitFailure)
		if !strings.Contains(o.stdout.String(), "\nDo not use locks in this directory") {
			t.Errorf("the conclusion is missing in\n%s", &o.stdout)
		}
	})
	t.Run("no directory", func(t *testing.T) {
		runForTest(t, program, nil, "check", filepath.Join(t.TempDir(), "x")).mustHaveStatus(t, cli.ExitSystem)
		runForTest(t, program, nil, "check").mustHaveStatus(t, cli.ExitUsage)
		runForTest(t, program, nil, "check", "").mustHaveStatus(t, cli.ExitUsage)
	})
}

func TestCheckMounts(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux")
	}
	program := sharedProgram()
	t.Run("overlay", func(t *testing.T) {
		dir := t.TempDir()
		options := "lowerdir=" + t.TempDir() + ",upperdir=" + t.TempDir() + ",workdir=" + t.TempDir()
		mount := exec.Command("mount", "-t", "overlay", "overlay", "-o", options, dir)
		if out, err := mount.CombinedOutput(); err != nil {
			skipOrFail(t, "an overlay: "+string(out))
		}
		defer unmount(t, dir)
		if kind := checkSound(t, program, dir).FileSystem.Type; kind != "overlay" {
			t.Errorf("type is %q", kind)
		}
	})
	t.Run("bindfs", func(t *testing.T) { testCheckBindfs(t, program) })
}

func checkSound(t *testing.T, program, dir string) checkReport {
	t.Helper()
	o := runForTest(t, program, nil, "check", "--json", dir)
	o.mustHaveStatus(t, 0)
	var r checkReport
	o.decode(t, &r)
	if !r.OK || len(r.Checks) != checkCount {
		t.Errorf("got %+v", r)
	}
	for _, v := range r.Checks {
		want := "pass"
		if v.Name == "hand-off" {
			want = "info" // it depends on the file system
		}
		if v.Result != want || v.Means != "" {
			t.Errorf("got %+v, want %s", v, want)
		}
	}
	return r
}

// checkBroken checks the report on locks that exclude nobody.
func checkBroken(t *testing.T, o *outcome) {
	t.Helper()
	o.mustHaveStatus(t, cli.ExitFailure)
	var r checkReport
	o.decode(t, &r)
	if r.OK || len(r.Checks) != checkCount {
		t.Errorf("got %+v", r)
	}
	for _, v := range r.Checks {
		want := "fail"
		if v.Name == "identity" {
			want = "pass" // has nothing to do with locks
		}
		if v.Result != want || (v.Means != "") != (want == "fail") {
			t.Errorf("got %+v, want %s", v, want)
		}
	}
}

// TestCheckProcessOwned checks locks as other systems than Linux have.
func TestCheckProcessOwned(t *testing.T) {
	program := buildForTest(t, "-tags", "processowned")
	o := runForTest(t, program, nil, "check", "--json", t.TempDir())
	o.mustHaveStatus(t, 0)
	var r checkReport
	o.decode(t, &r)
	for _, v := range r.Checks {
		want := "pass"
		if v.Name == "hand-off" || v.Name == "stray close" {
			want = "info"
		}
		if v.Result != want {
			t.Errorf("got %+v, want %s", v, want)
		}
	}
}

// TestCheckRefused checks a file system that has no locks, and says so.
func TestCheckRefused(t *testing.T) {
	program := buildChanged(t, "../../internal/posix/fcntl.go",
		"err = unix.FcntlFlock(uintptr(fd), cmd, lk)", "err = unix.ENOLCK")
	o := runForTest(t, program, nil, "check", "--json", t.TempDir())
	o.mustHaveStatus(t, cli.ExitFailure)
	var r checkReport
	o.decode(t, &r)
	for _, v := range r.Checks[1:] {
		if v.Result != "fail" || !strings.Contains(v.Means, "refused") {
			t.Errorf("got %+v", v)
		}
	}
}

// TestCheckReplaced checks locks whose waiters do not look whether the file
// that they have locked was removed. On a slow machine a waiter can come too
// late to be caught, but not every time: the test waits for one that does not.
func TestCheckReplaced(t *testing.T) {
	program := buildChanged(t, "../../internal/locktable/acquire.go", "\t\t\tif !same {", "\t\t\tif same, err = true, nil; !same {")
	for {
		o := runForTest(t, program, nil, "check", "--json", t.TempDir())
		var r checkReport
		o.decode(t, &r)
		for _, v := range r.Checks {
			if v.Result == "fail" && v.Name != "replaced" {
				t.Errorf("got %+v", v)
			}
		}
		if !r.OK {
			o.mustHaveStatus(t, cli.ExitFailure)
			return
		}
		t.Log("no waiter with a removed file was noticed")
	}
}

// buildChanged builds the command with another text in one of its files.
func buildChanged(t *testing.T, file, from, to string) string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux")
	}
	dir := t.TempDir()
	original, err := filepath.Abs(file)
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(source), from, to, 1)
	if changed == string(source) {
		t.Fatalf("%s does not have %q", file, from)
	}
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	overlay, err := json.Marshal(map[string]any{
		"Replace": map[string]string{original: write("changed.go", []byte(changed))},
	})
	if err != nil {
		t.Fatal(err)
	}
	return buildForTest(t, "-overlay", write("overlay.json", overlay))
}

// testCheckBindfs uses a real file system whose locks do nothing: bindfs can
// pass locks on to another file system, but does so in one process, in which
// none excludes another. If it does not pass them on, the kernel keeps them.
func testCheckBindfs(t *testing.T, program string) {
	if _, err := exec.LookPath("bindfs"); err != nil || os.Getuid() != 0 {
		skipOrFail(t, "bindfs, and the rights of root")
	}
	mount := func(options ...string) string {
		dir := t.TempDir()
		args := append(options, t.TempDir(), dir)
		if out, err := exec.Command("bindfs", args...).CombinedOutput(); err != nil {
			skipOrFail(t, "FUSE: "+string(out))
		}
		t.Cleanup(func() { unmount(t, dir) })
		return dir
	}
	if kind := checkSound(t, program, mount()).FileSystem.Type; !strings.HasPrefix(kind, "fuse") {
		t.Errorf("type is %q", kind)
	}
	dir := mount("--multithreaded", "--enable-lock-forwarding")
	checkBroken(t, runForTest(t, program, nil, "check", "--json", dir))
}

func unmount(t *testing.T, dir string) {
	if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
		t.Errorf("umount: %v: %s", err, out)
	}
}
