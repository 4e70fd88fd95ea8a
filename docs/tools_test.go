//go:build linux

// Package docs runs what the pages beside it say of this library, and of other libraries and
// programs.
package docs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/alexflint/go-filemutex"
	"github.com/gofrs/flock"
	"github.com/juju/mutex/v2"
	"github.com/rogpeppe/go-internal/lockedfile"
	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners"
)

// A tool is a library or a program that the comparison is about: a column of its table.
type tool struct {
	name string

	// A Go library has a module and open, which returns one lock value.
	module string
	open   func(path string) (*lockValue, error)
	// Other tools have argv, the command that does what lockUser describes.
	argv func(path, do string) []string
	// missing says what has to be installed first, or "".
	missing func() string

	bound         string // what bounds a wait; "" if nothing can
	lock, bounded string // the calls that wait, where the table tells them apart
	readers       string // what else the table says of read locks
	noReaders     bool
	noThreads     bool // cannot be used by two threads of one process
}

// A lockValue is a lock of a Go library. Its functions acquire the lock and return one that
// releases it.
type lockValue struct {
	lock    func() (release func() error, err error)
	bounded func(context.Context) (release func() error, err error) // nil if nothing can bound a wait
	read    func() (release func() error, err error)                // nil if there are no read locks
}

const (
	oursName       = "fasteners"
	lockedfileName = "lockedfile"
	filemutexName  = "go-filemutex"
	jujuName       = "juju/mutex"
	flockName      = "flock(1)"
	pythonName     = "Python fasteners"
)

// tools are the columns of the table, in their order.
var tools = []*tool{
	{name: oursName, open: valueOfOurs, bound: "context"},
	{name: "gofrs/flock", module: "github.com/gofrs/flock", open: valueOfGofrs,
		bound: "context", lock: "`Lock`", bounded: "`TryLockContext`"},
	{name: lockedfileName, module: "github.com/rogpeppe/go-internal", open: valueOfLockedfile,
		readers: "files, not `Mutex`"},
	{name: filemutexName, module: "github.com/alexflint/go-filemutex", open: valueOfFilemutex},
	{name: jujuName, module: "github.com/juju/mutex/v2", open: valueOfJuju,
		bound: "timeout", noReaders: true},
	{name: flockName, argv: flockCommand, missing: missingFlock,
		bound: "`-w`", noThreads: true},
	{name: pythonName, argv: pythonCommand, missing: missingPython, bound: "timeout"},
}

func valueOfOurs(path string) (*lockValue, error) {
	l, rw := fasteners.NewInterProcessLock(path), fasteners.NewInterProcessReaderWriterLock(path)
	bounded := func(ctx context.Context) (func() error, error) { return l.Release, l.Acquire(ctx) }
	return &lockValue{
		lock:    func() (func() error, error) { return bounded(context.Background()) },
		bounded: bounded,
		read: func() (func() error, error) {
			return rw.ReleaseReadLock, rw.AcquireReadLock(context.Background())
		},
	}, nil
}

func valueOfGofrs(path string) (*lockValue, error) {
	l := flock.New(path)
	return &lockValue{
		lock: func() (func() error, error) { return l.Unlock, l.Lock() },
		bounded: func(ctx context.Context) (func() error, error) {
			_, err := l.TryLockContext(&triedContext{Context: ctx}, 10*time.Millisecond)
			return l.Unlock, err
		},
		read: func() (func() error, error) { return l.Unlock, l.RLock() },
	}, nil
}

// A triedContext says so when TryLockContext asks for its channel, which it does after a try
// without success, and before it sleeps.
type triedContext struct {
	context.Context
	once sync.Once
}

func (c *triedContext) Done() <-chan struct{} {
	c.once.Do(func() { fmt.Println("tried") })
	return c.Context.Done()
}

func valueOfLockedfile(path string) (*lockValue, error) {
	l := lockedfile.MutexAt(path)
	return &lockValue{
		lock: func() (func() error, error) {
			unlock, err := l.Lock()
			return func() error { unlock(); return nil }, err
		},
		read: func() (func() error, error) {
			f, err := lockedfile.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o666)
			return f.Close, err
		},
	}, nil
}

func valueOfFilemutex(path string) (*lockValue, error) {
	l, err := filemutex.New(path)
	return &lockValue{
		lock: func() (func() error, error) { return l.Unlock, l.Lock() },
		read: func() (func() error, error) { return l.RUnlock, l.RLock() },
	}, err
}

// juju/mutex has names instead of paths: see lockUser.
func valueOfJuju(path string) (*lockValue, error) {
	name := strings.TrimPrefix(filepath.Base(path), "juju-")
	bounded := func(ctx context.Context) (func() error, error) {
		spec := mutex.Spec{Name: name, Clock: systemClock{}, Delay: time.Millisecond}
		if deadline, ok := ctx.Deadline(); ok {
			spec.Timeout = max(time.Until(deadline), 1) // 0 is no bound
		}
		holder, err := mutex.Acquire(spec)
		return func() error { holder.Release(); return nil }, err
	}
	return &lockValue{
		lock:    func() (func() error, error) { return bounded(context.Background()) },
		bounded: bounded,
	}, nil
}

// A soonContext has a deadline that is a moment after somebody has first asked whether the context
// is done: no machine is so slow that it is done before a try to acquire the lock.
type soonContext struct {
	context.Context
	once sync.Once
	done chan struct{}
}

func soon() context.Context {
	return &soonContext{Context: context.Background(), done: make(chan struct{})}
}

const moment = 10 * time.Millisecond

func (c *soonContext) Deadline() (time.Time, bool) { return time.Now().Add(moment), true }

func (c *soonContext) Done() <-chan struct{} {
	c.once.Do(func() { time.AfterFunc(moment, func() { close(c.done) }) })
	return c.done
}

func (c *soonContext) Err() error {
	select {
	case <-c.done:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

type systemClock struct{}

func (systemClock) Now() time.Time                         { return time.Now() }
func (systemClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

func flockCommand(path, do string) []string {
	const hold = "echo held; read line; true"
	switch do {
	case "lock":
		return []string{"flock", path, "sh", "-c", hold}
	case "bounded":
		return []string{"flock", "-w", "3600", path, "sh", "-c", hold}
	case "read":
		return []string{"flock", "-s", path, "sh", "-c", hold}
	case "explain":
		return []string{"sh", "-c", `echo "error: $(flock --verbose -w 0.01 "$1" true 2>&1)"; read line; true`, "sh", path}
	case "give up":
		return []string{"sh", "-c", `flock -w 0.01 "$1" true || echo gave up; read line; true`, "sh", path}
	case "child":
		return []string{"flock", path, "sh", "-c", "echo held; exec cat"}
	case "child without the lock":
		return []string{"flock", "-o", path, "sh", "-c", "echo held; exec cat"}
	}
	panic(do)
}

func missingFlock() string {
	if out, _ := exec.Command("flock", "--version").Output(); !bytes.Contains(out, []byte("util-linux")) {
		return "flock(1) of util-linux"
	}
	return ""
}

// python is Debian's interpreter, because Debian packages fasteners for it. Another one may come
// first in $PATH.
const python = "/usr/bin/python3"

func pythonCommand(path, do string) []string { return []string{python, "-c", pythonUser, path, do} }

func missingPython() string {
	if exec.Command(python, "-c", "import fasteners").Run() != nil {
		return "Python's fasteners (Debian: python3-fasteners)"
	}
	return ""
}

const pythonUser = `
import subprocess, sys, threading, time
import fasteners

path, do = sys.argv[1:]

def say(line):
    print(line, flush=True)

def sleep(delay):
    global sleep_quietly
    if not sleep_quietly:
        say("tried")
        sleep_quietly = True
    time.sleep(delay)

sleep_quietly = False
if do == "read":
    lock = fasteners.InterProcessReaderWriterLock(path, sleep_func=sleep)
    acquire, release = lock.acquire_read_lock, lock.release_read_lock
else:
    lock = fasteners.InterProcessLock(path, sleep_func=sleep)
    acquire, release = lock.acquire, lock.release

if do == "try":
    sys.exit(0 if acquire(blocking=False) else 1)
if not acquire(timeout={"bounded": 3600, "give up": 0.01, "explain": 0.01}.get(do)):
    say("gave up" if do == "give up" else "error: False")
    sys.stdin.readline()
    sys.exit()
if do == "child":
    subprocess.Popen(["cat"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
say("held")
if do == "twice":
    threading.Thread(target=lambda: acquire() and say("held twice"), daemon=True).start()
sys.stdin.readline()
release()
`

// A lockUser is a process that acquires a lock of a tool, in a new directory of its own, says
// "held", waits for a line, releases the lock and exits: without an error if the release has
// returned none. What it does, in detail, is one of
//
//	lock      wait for the lock, without a bound
//	bounded   wait for the lock, with a bound that does not come
//	give up   wait for the lock, which another process holds, for a moment; then say "gave up"
//	explain   the same, but say "error: " and what the tool tells then
//	read      wait for a read lock
//	exec      the first, and become another program, which runs until its standard input ends
//	child     the first, and start a process that runs until its standard input, the same, ends
//	twice     the first, and then let a second goroutine acquire the same lock value and say "held twice"
//
// It says "tried" when it has tried to acquire the lock, without success, and is about to sleep.
//
// The files have the name juju-lock, which juju/mutex makes of its name "lock", in $TMPDIR.
type lockUser struct {
	testing.TB
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string // closed at the end of its standard output
}

// toolVar names the tool, to a process of the test binary that is a lockUser. Its arguments are the
// path and what to do.
const toolVar = "FASTENERS_TEST_TOOL"

// startUser starts a process for which a new file has all permissions that the tool gives it.
func startUser(t testing.TB, tl *tool, path, do string) *lockUser {
	t.Helper()
	argv := []string{os.Args[0], path, do}
	if tl.argv != nil {
		argv = tl.argv(path, do)
	}
	argv = append([]string{"-c", `umask 0 && exec "$@"`, "sh"}, argv...)
	u := &lockUser{TB: t, cmd: exec.Command("sh", argv...), lines: make(chan string, 10)}
	u.cmd.Env = append(os.Environ(), toolVar+"="+tl.name, "TMPDIR="+filepath.Dir(path))
	u.cmd.Stderr = os.Stderr
	u.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var err error
	u.in, err = u.cmd.StdinPipe()
	must(t, err)
	out, err := u.cmd.StdoutPipe()
	must(t, err)
	must(t, u.cmd.Start())
	t.Cleanup(func() {
		u.killGroup()
		_ = u.cmd.Wait()
	})
	go func() {
		defer close(u.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			u.lines <- s.Text()
		}
	}()
	return u
}

// TestMain makes this process a lockUser if the environment says so.
func TestMain(m *testing.M) {
	name, ok := os.LookupEnv(toolVar)
	if !ok {
		os.Exit(m.Run())
	}
	if err := useLock(toolNamed(name), os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func useLock(tl *tool, path, do string) error {
	in := bufio.NewReader(os.Stdin)
	waitForLine := func() { _, _ = in.ReadString('\n') }
	l, err := tl.open(path)
	if err != nil {
		return err
	}
	var release func() error
	switch do {
	case "bounded":
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		release, err = l.bounded(ctx)
	case "give up", "explain":
		_, err := l.bounded(soon())
		switch {
		case err == nil:
			return errors.New("the wait was to be given up")
		case do == "explain":
			fmt.Println("error:", err)
		default:
			fmt.Println("gave up")
		}
		waitForLine()
		return nil
	case "read":
		release, err = l.read()
	default:
		release, err = l.lock()
	}
	if err != nil {
		return err
	}
	if do == "child" {
		child := exec.Command("cat")
		child.Stdin = os.Stdin
		if err := child.Start(); err != nil {
			return err
		}
	}
	fmt.Println("held")
	if do == "exec" {
		cat, err := exec.LookPath("cat")
		if err != nil {
			return err
		}
		return syscall.Exec(cat, []string{"cat"}, os.Environ())
	}
	second := make(chan error, 1)
	if do == "twice" {
		go func() {
			release, err := l.lock()
			if err == nil {
				fmt.Println("held twice")
				err = release()
			}
			second <- err
		}()
	} else {
		second <- nil
	}
	waitForLine()
	if release() != nil {
		os.Exit(1)
	}
	return <-second
}

// says reports whether the process says the line. If that is expected, says waits for it without a
// limit, so that a hang ends in a dump of all goroutines; otherwise only for a moment.
func (u *lockUser) says(line string, expected bool) bool {
	u.Helper()
	var limit <-chan time.Time
	if !expected {
		limit = time.After(50 * time.Millisecond)
	}
	for {
		select {
		case s, ok := <-u.lines:
			if s == line {
				return true
			}
			if s != "tried" || !ok {
				u.Fatalf("process says %q, waiting for %q", s, line)
			}
		case <-limit:
			return false
		}
	}
}

func (u *lockUser) mustSay(line string) { u.Helper(); u.says(line, true) }

// release makes the process release its lock and exit, and returns an error if the release has
// returned one.
func (u *lockUser) release() error {
	_, _ = io.WriteString(u.in, "\n")
	_ = u.in.Close()
	for range u.lines { // its end is that of the process
	}
	return u.cmd.Wait()
}

func (u *lockUser) mustRelease() { u.Helper(); must(u, u.release()) }

// kill kills the process but not those that it has started, and waits for its end. Their standard
// input stays open.
func (u *lockUser) kill() {
	u.Helper()
	must(u, u.cmd.Process.Kill())
	must(u, unix.Waitid(unix.P_PID, u.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil))
}

func (u *lockUser) killGroup() { _ = syscall.Kill(-u.cmd.Process.Pid, syscall.SIGKILL) }

// waits returns when the process waits for the lock on path, and reports whether the kernel does
// the waiting; otherwise the process sleeps between tries.
func (u *lockUser) waits(path string) (inKernel bool) {
	u.Helper()
	for {
		select {
		case s := <-u.lines:
			if s != "tried" {
				u.Fatalf("process says %q, while it should wait", s)
			}
			return false
		case <-time.After(time.Millisecond):
			if waitsInKernel(u, path) {
				return true
			}
		}
	}
}

// waitsInKernel reports whether a process waits in the kernel for a lock on path: /proc/locks has a
// line with an arrow then.
func waitsInKernel(t testing.TB, path string) bool {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	locks, err := os.ReadFile("/proc/locks")
	must(t, err)
	for line := range strings.Lines(string(locks)) {
		if strings.Contains(line, "->") && strings.Contains(line, fmt.Sprintf(":%d ", st.Ino)) {
			return true
		}
	}
	return false
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// skipOrFail skips the test, or fails it where nothing may be missing.
func skipOrFail(t testing.TB, missing string) {
	t.Helper()
	if os.Getenv("FASTENERS_TEST_STRICT") != "" {
		t.Fatal("missing: ", missing)
	}
	t.Skip("missing: ", missing)
}
