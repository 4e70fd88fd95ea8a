//go:build unix || windows

package tests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/go-fasteners/fasteners/internal/stress"
)

// pythonHelpers uses Python's fasteners, and communicates with the test as our helpers do.
const pythonHelpers = `
import sys
import time
import fasteners

def methods(path, variant):
    if variant == "exclusive":
        l = fasteners.InterProcessLock(path)
        return l.acquire, l.release
    l = fasteners.InterProcessReaderWriterLock(path)
    if variant == "read":
        return l.acquire_read_lock, l.release_read_lock
    return l.acquire_write_lock, l.release_write_lock

def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()

# As holdHelper.
def hold(path, variant):
    acquire, release = methods(path, variant)
    say("waiting")
    acquire(delay=0.001, max_delay=0.01)
    say("held")
    if not sys.stdin.readline():
        return
    release()
    say("released")

# As tryHelper.
def try_(path, variant):
    acquire, release = methods(path, variant)
    say(str(bool(acquire(blocking=False))).lower())

# As intervalsHelper.
def intervals(path, counter, seconds):
    sys.stdin.read()
    end = time.monotonic() + float(seconds)
    i = 0
    while i == 0 or time.monotonic() < end:
        i += 1
        variant = ["exclusive", "read", "write"][i % 3]
        acquire, release = methods(path, variant)
        acquire(delay=0.0001, max_delay=0.002)
        if variant == "read":
            say("acquired read")
            say("releasing read")
        else:
            say("acquired write")
            n = int(open(counter).read())
            with open(counter, "w") as f:
                f.write(str(n + 1))
            say("releasing write")
        release()

# As tryHelper, without fasteners but with the function that it calls.
def lockf(path):
    import fcntl
    with open(path, "a") as f:
        try:
            fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            say("true")
        except OSError:
            say("false")

{"hold": hold, "try": try_, "intervals": intervals, "lockf": lockf}[sys.argv[1]](*sys.argv[2:])
`

// A python is the name of a Python interpreter that has fasteners.
type python string

// findPython skips the test if there is no such interpreter.
func findPython(t *testing.T) python {
	t.Helper()
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(name, "-c", "import fasteners").Run() == nil {
			return python(name)
		}
	}
	skipOrFail(t, "Python's fasteners (Debian: python3-fasteners)")
	return ""
}

func (py python) command(args ...string) *exec.Cmd {
	return exec.Command(string(py), append([]string{"-c", pythonHelpers}, args...)...)
}

func (py python) startHolder(t *testing.T, path, variant string) *process {
	t.Helper()
	p := py.startWaiter(t, path, variant)
	p.expect("held")
	return p
}

func (py python) startWaiter(t *testing.T, path, variant string) *process {
	t.Helper()
	p := start(t, py.command("hold", path, variant))
	p.expect("waiting")
	return p
}

func (py python) mustTry(t *testing.T, path, variant string, want bool) {
	t.Helper()
	start(t, py.command("try", path, variant)).expect(strconv.FormatBool(want))
}

func (py python) mustTryLockf(t *testing.T, path string, want bool) {
	t.Helper()
	start(t, py.command("lockf", path)).expect(strconv.FormatBool(want))
}

func (py python) startIntervals(t *testing.T, log *eventLog, path, counter string) {
	t.Helper()
	log.start(t, py.command("intervals", path, counter, fmt.Sprint(stress.Time.Seconds())))
}

// Python's readers lock the whole file, including pending. While one of them holds the lock, a
// waiting writer of ours does not keep new readers out.
func TestPythonReadersLockPending(t *testing.T) {
	t.Parallel()
	py := findPython(t)
	path := lockPath(t)
	holder := py.startHolder(t, path, "read")
	w := startWaiter(t, path, "write", "cancelable")
	for range 5 { // starting Python takes longer than the writer needs to begin to wait
		py.mustTry(t, path, "read", true)
		reader(path).mustTry(t, true)
	}
	holder.release()
	w.expect("held")
}

func TestExclusionWithPython(t *testing.T) {
	t.Parallel()
	py := findPython(t)
	for _, ours := range variantNames {
		for _, theirs := range variantNames {
			t.Run(ours+"/"+theirs, func(t *testing.T) {
				path := lockPath(t)
				v := variantNamed(path, ours)
				if ours == "read" && theirs == "read" {
					v.mustAcquire(t)
					py.mustTry(t, path, theirs, true)
					v.mustRelease(t)
					py.startHolder(t, path, theirs)
					v.mustTry(t, true)
					return
				}

				v.mustAcquire(t)
				py.mustTry(t, path, theirs, false)
				p := py.startWaiter(t, path, theirs)
				v.mustRelease(t)
				p.expect("held")
				v.mustTry(t, false)

				done := v.goAcquire(t, cancelable(t))
				p.release()
				must(t, <-done)
				v.mustRelease(t)

				// If the holder dies, the other side acquires the lock.
				p = py.startHolder(t, path, theirs)
				done = v.goAcquire(t, background)
				p.kill()
				must(t, <-done)
				v.mustRelease(t)

				holder := startHolder(t, path, ours)
				p = py.startWaiter(t, path, theirs)
				holder.kill()
				p.expect("held")
			})
		}
	}
}

// As TestHoldIntervals, but half of the processes run Python.
func TestHoldIntervalsWithPython(t *testing.T) {
	t.Parallel()
	py := findPython(t)
	path := lockPath(t)
	counter := newCounter(t)
	log := newEventLog(t)
	for range 3 {
		startIntervals(t, log, path, counter)
		py.startIntervals(t, log, path, counter)
	}
	checkIntervals(t, log, counter)
}

// The locks of some other programs exclude ours and some do not, as the README says.
func TestOtherPrograms(t *testing.T) {
	t.Parallel()
	t.Run("lockf", func(t *testing.T) {
		py := findPython(t)
		path := lockPath(t)
		v := exclusive(path)
		v.mustAcquire(t)
		py.mustTryLockf(t, path, false)
		v.mustRelease(t)
		py.mustTryLockf(t, path, true)
	})
	t.Run("dpkg", testDpkg)
	t.Run("flock", testFlock)
}

func testDpkg(t *testing.T) {
	if _, err := exec.LookPath("dpkg"); err != nil {
		skipOrFail(t, "dpkg")
	}
	dir := t.TempDir() // the database of a dpkg that knows no packages
	for _, name := range []string{"info", "updates", "triggers"} {
		must(t, os.Mkdir(filepath.Join(dir, name), 0o777))
	}
	for _, name := range []string{"lock", "lock-frontend", "status"} {
		must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o666))
	}
	// It would refuse to be run by a user other than root, and without sbin in PATH.
	dpkg := func() ([]byte, error) {
		return exec.Command("dpkg", "--admindir="+dir, "--log="+os.DevNull,
			"--force-not-root", "--force-bad-path", "--configure", "-a").CombinedOutput()
	}
	if out, err := dpkg(); err != nil {
		skipOrFail(t, fmt.Sprintf("a dpkg that works (%v: %s)", err, out))
	}
	v := exclusive(filepath.Join(dir, "lock"))
	v.mustAcquire(t)
	if _, err := dpkg(); err == nil {
		t.Error("dpkg works while its lock file is locked")
	}
	v.mustRelease(t)
	if out, err := dpkg(); err != nil {
		t.Errorf("dpkg does not work while its lock file is free: %v: %s", err, out)
	}
}

func testFlock(t *testing.T) {
	if _, err := exec.LookPath("flock"); err != nil {
		skipOrFail(t, "flock(1)")
	}
	path := lockPath(t)
	v := exclusive(path)
	v.mustAcquire(t)
	must(t, exec.Command("flock", "--nonblock", path, "true").Run())
	v.mustRelease(t)

	// Since util-linux 2.41 there is an option to use locks that exclude ours.
	help, _ := exec.Command("flock", "--help").CombinedOutput()
	if !strings.Contains(string(help), "--fcntl") {
		t.Log("flock(1) has no option --fcntl here")
		return
	}
	for _, v := range variants(path) {
		for _, mode := range []string{"--shared", "--exclusive"} {
			v.mustAcquire(t)
			err := exec.Command("flock", "--fcntl", mode, "--nonblock", path, "true").Run()
			if (err == nil) != (v.shared && mode == "--shared") {
				t.Errorf("flock --fcntl %s while our %s lock is held: %v", mode, v.name, err)
			}
			v.mustRelease(t)
		}
	}
}
