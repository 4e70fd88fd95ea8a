//go:build linux

package docs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/rogpeppe/go-internal/lockedfile"
	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners"
)

// What migrating.md shows, in functions that the tests below call.

func afterPython(ctx context.Context, path string, writeReport func(context.Context) error) error {
	lock := fasteners.NewInterProcessLock(path, fasteners.WithTimeout(5*time.Second))
	err := fasteners.WithLock(ctx, lock, writeReport)
	var held *fasteners.HeldError
	if errors.As(err, &held) {
		fmt.Println("timed out")
		return nil
	}
	return err
}

func fromGofrs(ctx, waitCtx context.Context, path string, writeReport func(context.Context) error) error {
	lock := flock.New(path, flock.SetPermissions(0o600))
	ok, err := lock.TryLockContext(waitCtx, 10*time.Millisecond)
	if err != nil {
		return err // also if waitCtx is done
	}
	if !ok {
		return errors.New("not locked")
	}
	defer lock.Unlock()
	return writeReport(ctx)
}

func afterGofrs(ctx context.Context, path string, writeReport func(context.Context) error) error {
	lock := fasteners.NewInterProcessLock(path, fasteners.WithFileMode(0o600), fasteners.WithTimeout(5*time.Second))
	return fasteners.WithLock(ctx, lock, writeReport)
}

func fromLockedfile(ctx context.Context, path string, writeReport func(context.Context) error) error {
	unlock, err := lockedfile.MutexAt(path).Lock()
	if err != nil {
		return err
	}
	defer unlock()
	return writeReport(ctx)
}

func afterLockedfile(ctx context.Context, path string, writeReport func(context.Context) error) error {
	return fasteners.WithLock(ctx, fasteners.NewInterProcessLock(path), writeReport)
}

func transform(_ context.Context, path string, increment func([]byte) ([]byte, error)) error {
	err := lockedfile.Transform(path, increment)
	return err
}

func replaceUnderLock(ctx context.Context, path string, increment func([]byte) ([]byte, error)) error {
	lock := fasteners.NewInterProcessLock(path + ".lock")
	err := fasteners.WithLock(ctx, lock, func(context.Context) error {
		old, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		data, err := increment(old)
		if err != nil {
			return err
		}
		if err := os.WriteFile(path+".new", data, 0o666); err != nil {
			return err
		}
		return os.Rename(path+".new", path)
	})
	return err
}

func lockPath(t testing.TB) string { return filepath.Join(t.TempDir(), "lock") }

func mustAcquire(t testing.TB, l fasteners.Locker) {
	t.Helper()
	must(t, l.Acquire(context.Background()))
}

// umask lets new files have all permissions that they are created with. It is that of the whole
// process.
func umask(t testing.TB) {
	old := unix.Umask(0)
	t.Cleanup(func() { unix.Umask(old) })
}

func checkMode(t testing.TB, path string, want fs.FileMode) {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	if got := info.Mode().Perm(); got != want {
		t.Errorf("%s has mode %v, want %v", path, got, want)
	}
}

// TestMigratingSnippets compiles the snippets by comparing them with this file.
func TestMigratingSnippets(t *testing.T) {
	checkSnippets(t, "migrating.md", "migrating_test.go")
}

func TestMigratedFunctions(t *testing.T) {
	for name, f := range map[string]func(ctx context.Context, path string, work func(context.Context) error) error{
		"afterPython": afterPython,
		"fromGofrs": func(ctx context.Context, path string, work func(context.Context) error) error {
			return fromGofrs(ctx, ctx, path, work)
		},
		"afterGofrs":      afterGofrs,
		"fromLockedfile":  fromLockedfile,
		"afterLockedfile": afterLockedfile,
	} {
		t.Run(name, func(t *testing.T) {
			failed, calls := errors.New("failed"), 0
			path := lockPath(t)
			for range 2 { // the second needs the release of the first
				err := f(context.Background(), path, func(context.Context) error { calls++; return failed })
				if !errors.Is(err, failed) {
					t.Errorf("returned %v, want %v", err, failed)
				}
			}
			if calls != 2 {
				t.Errorf("%d calls, want 2", calls)
			}
		})
	}
	increment := func(old []byte) ([]byte, error) {
		n, _ := strconv.Atoi(string(old))
		return []byte(strconv.Itoa(n + 1)), nil
	}
	for name, f := range map[string]func(context.Context, string, func([]byte) ([]byte, error)) error{
		"transform": transform, "replaceUnderLock": replaceUnderLock,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "data.json")
			for range 3 {
				must(t, f(context.Background(), path, increment))
			}
			data, err := os.ReadFile(path)
			must(t, err)
			if string(data) != "3" {
				t.Errorf("data are %q, want 3", data)
			}
		})
	}
}

// TestMigratingFromPython runs the snippet for Python, and what the page says of Python's
// fasteners.
func TestMigratingFromPython(t *testing.T) {
	toolNamed(pythonName).require(t)
	page, err := os.ReadFile("migrating.md")
	must(t, err)
	_, snippet, _ := strings.Cut(string(page), "```python\n")
	snippet, _, _ = strings.Cut(snippet, "```")

	path := lockPath(t)
	run := func(program string) string {
		t.Helper()
		program = "import fasteners, sys\nlock = fasteners.InterProcessLock(sys.argv[1])\n" + program
		out, err := exec.Command(python, "-c", program, path).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	expect := func(program, want string) {
		t.Helper()
		if got := run(program); got != want {
			t.Errorf("Python prints %q, want %q, by\n%s", got, want, program)
		}
	}
	report := "def write_report(): print('written')\n"
	expect(report+snippet, "written")

	ours := fasteners.NewInterProcessLock(path)
	mustAcquire(t, ours)
	expect(report+strings.ReplaceAll(snippet, "timeout=5", "timeout=0.01"), "timed out")
	must(t, ours.Release())

	// The same value acquired twice, and released once.
	other := `import subprocess
other = "import fasteners, sys; print(fasteners.InterProcessLock(sys.argv[1]).acquire(blocking=False))"
def free():
    command = [sys.executable, "-c", other, sys.argv[1]]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()
`
	expect(other+"print(lock.acquire(), lock.acquire(), free())\nlock.release()\nprint(free())",
		"True True False\nTrue")
	// Another descriptor of the file is closed.
	expect(other+"lock.acquire()\nopen(sys.argv[1]).close()\nprint(free())", "True")
	expect("import threading\ntry: lock.release()\nexcept threading.ThreadError: print('error')", "error")
	expect("print(lock.DELAY_INCREMENT, lock.MAX_DELAY)", "0.01 0.1")

	// On Linux this package keeps its lock when the file is read.
	mustAcquire(t, ours)
	if _, err := os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	expect("print(lock.acquire(blocking=False))", "False")
	must(t, ours.Release())
	expect("print(lock.acquire(blocking=False))", "True")
	if err := ours.Release(); !errors.Is(err, fasteners.ErrNotAcquired) {
		t.Errorf("release too many: %v", err)
	}
}

// The four traps, on both sides.

func TestGofrsAndFastenersHoldTogether(t *testing.T) {
	path := lockPath(t)
	ours, theirs := fasteners.NewInterProcessLock(path), flock.New(path)
	mustAcquire(t, ours)
	if ok, err := theirs.TryLock(); !ok || err != nil {
		t.Errorf("gofrs/flock, while we hold the lock: %v, %v", ok, err)
	}
	must(t, theirs.Unlock())
	must(t, ours.Release())
}

func TestGofrsSecondLock(t *testing.T) {
	path := lockPath(t)
	theirs := flock.New(path)
	for range 2 {
		must(t, theirs.Lock())
	}
	if ok, err := theirs.TryLock(); !ok || err != nil {
		t.Errorf("gofrs/flock, second TryLock: %v, %v", ok, err)
	}
	must(t, theirs.Unlock())
	if ok, err := flock.New(path).TryLock(); !ok || err != nil {
		t.Errorf("gofrs/flock, after one of two unlocks: %v, %v", ok, err)
	}

	ours := fasteners.NewInterProcessLock(path)
	mustAcquire(t, ours)
	if err := ours.Acquire(soon()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("second Acquire: %v", err)
	}
	if ok, err := ours.TryAcquire(); ok || err != nil {
		t.Errorf("second TryAcquire: %v, %v", ok, err)
	}
	must(t, ours.Release())
}

func TestGofrsErrorsAndMode(t *testing.T) {
	umask(t)
	path := lockPath(t)
	holder := flock.New(path)
	must(t, holder.Lock())
	checkMode(t, path, 0o600)
	if ok, err := flock.New(path).TryLockContext(soon(), time.Millisecond); ok || err != context.DeadlineExceeded {
		t.Errorf("gofrs/flock, TryLockContext: %v, %v", ok, err)
	}
	if ok, err := flock.New(path).TryLock(); ok || err != nil {
		t.Errorf("gofrs/flock, TryLock: %v, %v", ok, err)
	}

	path = lockPath(t)
	ours := fasteners.NewInterProcessLock(path)
	mustAcquire(t, ours)
	checkMode(t, path, 0o666)
	var pathErr *fs.PathError
	err := fasteners.NewInterProcessLock(path).Acquire(soon())
	if !errors.As(err, &pathErr) || !errors.Is(err, context.DeadlineExceeded) || err == context.DeadlineExceeded {
		t.Errorf("Acquire: %v", err)
	}
	if ok, err := fasteners.NewInterProcessLock(path).TryAcquire(); ok || err != nil {
		t.Errorf("TryAcquire: %v, %v", ok, err)
	}
	must(t, ours.Release())

	path = lockPath(t)
	must(t, afterGofrs(context.Background(), path, func(context.Context) error { return nil }))
	checkMode(t, path, 0o600)
}

func TestGofrsUnlockAndUpgrade(t *testing.T) {
	path := lockPath(t)
	theirs := flock.New(path)
	must(t, theirs.Unlock())
	must(t, theirs.RLock())
	must(t, theirs.Lock())
	if ok, err := flock.New(path).TryRLock(); ok || err != nil {
		t.Errorf("gofrs/flock, read lock beside an upgraded one: %v, %v", ok, err)
	}
	must(t, theirs.Unlock())

	if err := fasteners.NewInterProcessLock(path).Release(); !errors.Is(err, fasteners.ErrNotAcquired) {
		t.Errorf("Release: %v", err)
	}
	ours := fasteners.NewInterProcessReaderWriterLock(path)
	must(t, ours.AcquireReadLock(context.Background()))
	if err := ours.AcquireWriteLock(soon()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("upgrade: %v", err)
	}
	must(t, ours.ReleaseReadLock())
}

// checkSnippets checks that the Go snippets of a page stand in a file of this package, whatever the
// indentation.
func checkSnippets(t *testing.T, page, program string) {
	t.Helper()
	flat := func(s string) string {
		var lines []string
		for line := range strings.Lines(s) {
			lines = append(lines, strings.TrimSpace(line))
		}
		return strings.Join(lines, "\n")
	}
	code, err := os.ReadFile(program)
	must(t, err)
	text, err := os.ReadFile(page)
	must(t, err)
	snippets := bytes.Split(text, []byte("```go\n"))[1:]
	if len(snippets) == 0 {
		t.Errorf("%s has no snippets", page)
	}
	for _, s := range snippets {
		s, _, _ := strings.Cut(string(s), "```")
		if !strings.Contains(flat(string(code)), flat(strings.TrimSpace(s))) {
			t.Errorf("%s does not have this snippet of %s:\n%s", program, page, s)
		}
	}
}
