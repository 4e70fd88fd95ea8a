//go:build unix || windows

package fasteners_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The real fasteners for Python is a peer. pythonHelpers talks as our helpers do.
const pythonHelpers = `
import sys
import fasteners

def lock(path, side):
    if side == "exclusive":
        l = fasteners.InterProcessLock(path)
        return l.acquire, l.release
    l = fasteners.InterProcessReaderWriterLock(path)
    if side == "read":
        return l.acquire_read_lock, l.release_read_lock
    return l.acquire_write_lock, l.release_write_lock

def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()

def hold(path, side):
    acquire, release = lock(path, side)
    say("waiting")
    acquire(delay=0.001, max_delay=0.01)
    say("held")
    if not sys.stdin.readline():
        return
    release()
    say("released")

def attempt(path, side):
    acquire, release = lock(path, side)
    say(str(bool(acquire(blocking=False))).lower())

# As the helper of TestIntervals.
def intervals(path, counter):
    sys.stdin.read()
    for i in range(100):
        side = ["exclusive", "read", "write"][i % 3]
        acquire, release = lock(path, side)
        acquire(delay=0.0001, max_delay=0.002)
        if side == "read":
            say("+r")
            say("-r")
        else:
            say("+w")
            n = int(open(counter).read())
            with open(counter, "w") as f:
                f.write(str(n + 1))
            say("-w")
        release()

# Not fasteners, but the call below it.
def lockf(path):
    import fcntl
    with open(path, "a") as f:
        try:
            fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            say("true")
        except OSError:
            say("false")

{"hold": hold, "try": attempt, "intervals": intervals, "lockf": lockf}[sys.argv[1]](*sys.argv[2:])
`

// python returns a command that runs one of pythonHelpers. It skips the test if there is no
// Python that has fasteners.
func python(t *testing.T) func(args ...string) *exec.Cmd {
	t.Helper()
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(name, "-c", "import fasteners").Run() == nil {
			return func(args ...string) *exec.Cmd {
				return exec.Command(name, append([]string{"-c", pythonHelpers}, args...)...)
			}
		}
	}
	missing(t, "Python's fasteners (Debian: python3-fasteners)")
	return nil
}

// Python's readers lock all of the file, and with it pending: while one is inside, a writer of ours that
// waits cannot keep others out.
func TestPythonReadersLockPending(t *testing.T) {
	command := python(t)
	path := lockPath(t)
	inside := start(t, command("hold", path, "read"))
	inside.expect("waiting")
	inside.expect("held")
	w := startHelper(t, "hold", path, "write", "cancellable")
	w.expect("waiting")
	for range 5 { // to start Python takes longer than the writer's first tries
		start(t, command("try", path, "read")).expect("true")
		sides(path)[1].mustTry(t, true)
	}
	inside.release()
	w.expect("held")
}

func TestPairsWithPython(t *testing.T) {
	command := python(t)
	for i, ours := range []string{"exclusive", "read", "write"} {
		for _, theirs := range []string{"exclusive", "read", "write"} {
			t.Run(ours+"/"+theirs, func(t *testing.T) {
				path := lockPath(t)
				s := sides(path)[i]
				if ours == "read" && theirs == "read" {
					s.mustAcquire(t)
					start(t, command("try", path, theirs)).expect("true")
					s.mustRelease(t)
					p := start(t, command("hold", path, theirs))
					p.expect("waiting")
					p.expect("held")
					s.mustTry(t, true)
					return
				}

				s.mustAcquire(t)
				start(t, command("try", path, theirs)).expect("false")
				p := start(t, command("hold", path, theirs))
				p.expect("waiting")
				s.mustRelease(t)
				p.expect("held")
				s.mustTry(t, false)

				done := s.goAcquire(t, cancellable(t))
				p.release()
				must(t, <-done)
				s.mustRelease(t)

				// Death frees, on either side.
				p = start(t, command("hold", path, theirs))
				p.expect("waiting")
				p.expect("held")
				done = s.goAcquire(t, background)
				p.kill()
				must(t, <-done)
				s.mustRelease(t)

				holder := startHolder(t, path, ours)
				p = start(t, command("hold", path, theirs))
				p.expect("waiting")
				holder.kill()
				p.expect("held")
			})
		}
	}
}

// As TestIntervals, with Python among the processes.
func TestIntervalsWithPython(t *testing.T) {
	command := python(t)
	path := lockPath(t)
	counter := filepath.Join(t.TempDir(), "counter")
	must(t, os.WriteFile(counter, []byte("0"), 0o666))
	j := newJournal(t)
	for range 3 {
		j.addHelper(t, "intervals", path, counter)
		j.add(t, command("intervals", path, counter))
	}
	checkIntervals(t, j, counter)
}

// Which other programs take part and which do not, as the README says.
func TestOtherPrograms(t *testing.T) {
	t.Run("lockf", func(t *testing.T) {
		command := python(t)
		path := lockPath(t)
		s := sides(path)[0]
		s.mustAcquire(t)
		start(t, command("lockf", path)).expect("false")
		s.mustRelease(t)
		start(t, command("lockf", path)).expect("true")
	})
	t.Run("dpkg", func(t *testing.T) {
		if _, err := exec.LookPath("dpkg"); err != nil {
			missing(t, "dpkg")
		}
		dir := t.TempDir() // of a dpkg that knows no packages
		for _, name := range []string{"info", "updates", "triggers"} {
			must(t, os.Mkdir(filepath.Join(dir, name), 0o777))
		}
		for _, name := range []string{"lock", "lock-frontend", "status"} {
			must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o666))
		}
		dpkg := func() error { return exec.Command("dpkg", "--admindir="+dir, "--configure", "-a").Run() }
		s := sides(filepath.Join(dir, "lock"))[0]
		s.mustAcquire(t)
		if dpkg() == nil {
			t.Error("dpkg works while its lock file is locked")
		}
		s.mustRelease(t)
		if os.Getuid() == 0 { // others may not run it
			must(t, dpkg())
		}
	})
	t.Run("flock", func(t *testing.T) {
		if _, err := exec.LookPath("flock"); err != nil {
			missing(t, "flock(1)")
		}
		path := lockPath(t)
		s := sides(path)[0]
		s.mustAcquire(t)
		must(t, exec.Command("flock", "--nonblock", path, "true").Run())
		s.mustRelease(t)

		// Since util-linux 2.41 it has another way, which takes part.
		help, _ := exec.Command("flock", "--help").CombinedOutput()
		if !strings.Contains(string(help), "--fcntl") {
			t.Log("flock(1) has no --fcntl here")
			return
		}
		for _, s := range sides(path) {
			for _, mode := range []string{"--shared", "--exclusive"} {
				s.mustAcquire(t)
				err := exec.Command("flock", "--fcntl", mode, "--nonblock", path, "true").Run()
				if (err == nil) != (s.shared && mode == "--shared") {
					t.Errorf("flock --fcntl %s beside our %s lock: %v", mode, s.name, err)
				}
				s.mustRelease(t)
			}
		}
	})
}
