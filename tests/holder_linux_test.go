package tests

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/internal/posix"
	"github.com/go-fasteners/fasteners/internal/stress"
)

// asRoot skips the test without the rights of root.
func asRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		skipOrFail(t, "the rights of root")
	}
}

func pids(holders []fasteners.Holder) (pids []int) {
	for _, h := range holders {
		pids = append(pids, h.PID)
	}
	return pids
}

// All readers are known, and the writers that wait for them in the kernel, with their time.
func TestHoldersAndWaiters(t *testing.T) {
	path := lockPath(t)
	start := time.Now()
	readers := map[int]*process{}
	for range 3 {
		p := startHolder(t, path, "read")
		readers[p.cmd.Process.Pid] = p
	}
	writers := map[int]*process{}
	if !posix.ForceProcessOwned.Load() { // in that form nobody waits in the kernel
		for range 2 {
			p := startWaiter(t, path, "write", "cancelable")
			writers[p.cmd.Process.Pid] = p
		}
	}
	holders := holdersOf(t, path)
	for len(holders) < len(readers)+len(writers) { // until they wait
		holders = holdersOf(t, path)
	}
	for i, h := range holders {
		p := readers[h.PID]
		if h.Waiting {
			p = writers[h.PID]
		}
		if p == nil || h.Waiting != (i >= 3) {
			t.Fatalf("holders are %+v", holders)
		}
		checkHolder(t, h, p, !h.Waiting, h.Waiting, start)
		delete(readers, h.PID)
		delete(writers, h.PID)
	}
	if len(readers)+len(writers) > 0 {
		t.Errorf("of %v, these are missing: %v, %v", holders, readers, writers)
	}
}

// soonTimedOut waits for a lock that is held, for a moment, and returns the error.
func soonTimedOut(path string) error {
	return exclusive(path, fasteners.WithTimeout(time.Millisecond)).acquire(background)
}

// A Python process is known by its PID, as the kernel tells, and by the name of the interpreter.
func TestHoldersInPython(t *testing.T) {
	t.Parallel()
	py := findPython(t)
	for _, variant := range variantNames {
		path := lockPath(t)
		p := py.startHolder(t, path, variant)
		for _, holders := range [][]fasteners.Holder{
			holdersOf(t, path),
			checkHeldError(t, soonTimedOut(path), path, context.DeadlineExceeded),
		} {
			if len(holders) != 1 || holders[0].PID != p.cmd.Process.Pid || holders[0].Shared != (variant == "read") ||
				!strings.HasPrefix(holders[0].Command, "python") || !holders[0].Since.IsZero() {
				t.Errorf("holders are %+v, want process %d", holders, p.cmd.Process.Pid)
			}
		}
	}
}

// Another program can use locks of open file descriptions, of which the kernel does not tell the
// PID. It is found by its descriptors, and so is another one with the same lock.
func TestHoldersByDescriptor(t *testing.T) {
	path := lockPath(t)
	must(t, os.WriteFile(path, nil, 0o666))
	var want []int
	for range 2 {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		must(t, err)
		must(t, unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_RDLCK}))
		cmd := exec.Command("sh", "-c", "echo started; read line")
		cmd.ExtraFiles = []*os.File{f} // so that it holds the lock, too
		p := start(t, cmd)
		p.expect("started") // by now it has its own name
		f.Close()
		want = append(want, cmd.Process.Pid)
	}
	holders := holdersOf(t, path)
	slices.Sort(want)
	if got := pids(holders); !slices.Equal(slices.Sorted(slices.Values(got)), want) || holders[0].Command != "sh" {
		t.Errorf("holders are %+v, want processes %d", holders, want)
	}
}

// A process has the same range on all files that it locks in the same second.
func TestHoldersOfOneOfManyFiles(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	p := startHolder(t, a, "read")
	startHolder(t, b, "read")
	if got := pids(holdersOf(t, a)); len(got) != 1 || got[0] != p.cmd.Process.Pid {
		t.Errorf("holders are %v, want %d", got, p.cmd.Process.Pid)
	}
}

// A waiting reader of this process, which has no tag, is reported once.
func TestHoldersWithOwnReader(t *testing.T) {
	path := lockPath(t)
	p := startHolder(t, path, "write")
	acquired := reader(path).goAcquire(t, cancelable(t))
	for range stress.Rounds() {
		holders := holdersOf(t, path)
		if len(holders) != 2 || holders[0].PID != p.cmd.Process.Pid ||
			holders[1].PID != os.Getpid() || !holders[1].Waiting {
			t.Fatalf("holders are %v, want process %d, and this one, which waits", holders, p.cmd.Process.Pid)
		}
	}
	p.release()
	must(t, <-acquired)
}

func canUnshare(t *testing.T) {
	t.Helper()
	asRoot(t)
	if out, err := exec.Command("unshare", "--pid", "--fork", "--mount-proc", "true").CombinedOutput(); err != nil {
		skipOrFail(t, "unshare(1): "+string(out))
	}
}

// unshare makes the command run in a PID namespace of its own. Its PID there is 1.
func unshare(cmd *exec.Cmd, flags ...string) *exec.Cmd {
	args := append([]string{"unshare", "--pid", "--fork", "--kill-child"}, flags...)
	cmd.Args = append(append(args, cmd.Path), cmd.Args[1:]...)
	cmd.Path, _ = exec.LookPath("unshare")
	return cmd
}

// A process of another PID namespace has another PID there, which an innocent process of this one
// may have.
func TestHoldersInAnotherPIDNamespace(t *testing.T) {
	canUnshare(t)
	unshared := func(h *helper, args ...string) *process {
		return start(t, unshare(helperCommand(h, args...), "--mount-proc"))
	}
	t.Run("theirs", func(t *testing.T) {
		path := lockPath(t)
		p := unshared(holdHelper, path, "write", "background")
		p.expect("waiting", "held")
		holders := checkHeldError(t, soonTimedOut(path), path, context.DeadlineExceeded)
		// The kernel translates the PID of a process that owns its locks.
		if len(holders) != 1 || holders[0].Since.IsZero() || !posix.ForceProcessOwned.Load() && holders[0].PID != 0 {
			t.Errorf("in the error, holders are %+v", holders)
		}
		// As root we see its descriptors, and it is a child of unshare.
		holders = holdersOf(t, path)
		parent := ""
		if len(holders) == 1 {
			status, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(holders[0].PID), "status"))
			_, parent, _ = strings.Cut(string(status), "\nPPid:")
			parent, _, _ = strings.Cut(parent, "\n")
		}
		if strings.TrimSpace(parent) != strconv.Itoa(p.cmd.Process.Pid) {
			t.Errorf("holders are %+v, child of %s, want the child of %d", holders, parent, p.cmd.Process.Pid)
		}
	})
	t.Run("ours", func(t *testing.T) {
		path := lockPath(t)
		exclusive(path).mustAcquire(t)
		var holders []fasteners.Holder
		must(t, json.Unmarshal([]byte(unshared(holdersHelper, path).line()), &holders))
		if len(holders) != 1 || holders[0].PID != 0 || holders[0].Command != "" || holders[0].Since.IsZero() {
			t.Errorf("seen from there, holders are %+v", holders)
		}
	})
}

// Nobody needs rights on the process that holds the lock.
func TestHoldersOfAnotherUser(t *testing.T) {
	asRoot(t)
	dir, err := os.MkdirTemp("", "fasteners-test-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o777))
	path := filepath.Join(dir, "lock")
	exe := filepath.Join(dir, "helper")
	own, err := os.Executable()
	must(t, err)
	program, err := os.ReadFile(own)
	must(t, err)
	must(t, os.WriteFile(exe, program, 0o755))
	asNobody := func(h *helper, args ...string) *process {
		cmd := helperCommand(h, args...)
		for i, arg := range cmd.Args {
			if arg == own {
				cmd.Args[i] = exe
			}
		}
		if cmd.Path == own {
			cmd.Path = exe
		}
		cmd.Dir = dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		return start(t, cmd)
	}
	p := asNobody(holdHelper, path, "write", "background")
	p.expect("waiting", "held")
	if got := pids(holdersOf(t, path)); len(got) != 1 || got[0] != p.cmd.Process.Pid {
		t.Errorf("held by nobody: holders are %v, want %d", got, p.cmd.Process.Pid)
	}
	p.release()
	v := exclusive(path)
	v.mustAcquire(t)
	var holders []fasteners.Holder
	must(t, json.Unmarshal([]byte(asNobody(holdersHelper, path).line()), &holders))
	if len(holders) != 1 || holders[0].PID != os.Getpid() || holders[0].Command == "" {
		t.Errorf("held by root: holders are %+v, want %d", holders, os.Getpid())
	}
	v.mustRelease(t)

	// A file that nobody may open is in the list of the kernel all the same, though not on file
	// systems such as Btrfs under the number that stat(2) returns.
	must(t, os.Chmod(path, 0))
	v.mustAcquire(t)
	defer v.release()
	if st, err := posix.Stat(path); err != nil || !isInListOfLocks(st.Dev, st.Ino) {
		t.Logf("not in the list of locks by that number (error %v)", err)
		return
	}
	must(t, json.Unmarshal([]byte(asNobody(holdersHelper, path).line()), &holders))
	if len(holders) != 1 || holders[0].PID != os.Getpid() {
		t.Errorf("a file that nobody may open: holders are %+v, want %d", holders, os.Getpid())
	}
}

// isInListOfLocks reports whether a lock of the file is in proc_locks(5), which may leave one out
// for a moment.
func isInListOfLocks(dev, ino uint64) bool {
	file := fmt.Sprintf(" %02x:%02x:%d ", unix.Major(dev), unix.Minor(dev), ino)
	for range 10 {
		if list, _ := os.ReadFile("/proc/locks"); strings.Contains(string(list), file) {
			return true
		}
	}
	return false
}

// File systems such as overlayfs have another device number in /proc/locks than for stat(2).
func TestHoldersOnOverlay(t *testing.T) {
	asRoot(t)
	dir := mount(t, "size=10m")
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		must(t, os.Mkdir(filepath.Join(dir, name), 0o777))
	}
	merged := filepath.Join(dir, "merged")
	must(t, os.WriteFile(filepath.Join(dir, "lower", "lock"), nil, 0o666))
	options := strings.NewReplacer("DIR", dir).Replace("lowerdir=DIR/lower,upperdir=DIR/upper,workdir=DIR/work")
	if err := unix.Mount("fasteners-test", merged, "overlay", 0, options); err != nil {
		skipOrFail(t, "overlayfs: "+err.Error())
	}
	defer func() { must(t, unix.Unmount(merged, unix.MNT_DETACH)) }()
	path := filepath.Join(merged, "lock")
	first, second := startHolder(t, path, "read"), startHolder(t, path, "read")
	got := pids(holdersOf(t, path))
	if len(got) != 2 || got[0]+got[1] != first.cmd.Process.Pid+second.cmd.Process.Pid {
		t.Errorf("holders are %v, want %d and %d", got, first.cmd.Process.Pid, second.cmd.Process.Pid)
	}
}

// seenHelper has another process hold the lock, and prints its PID, and what is said of it.
var seenHelper = newHelper("seen", func(_ *bufio.Reader, args []string) error {
	cmd := helperCommand(holdHelper, args[0], "write", "background")
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	for line, r := "", bufio.NewReader(out); line != "held\n"; {
		if line, err = r.ReadString('\n'); err != nil {
			return err
		}
	}
	return printSeen(args[0], cmd.Process.Pid)
})

// A seen is what a process sees of a holder.
type seen struct {
	PID             int // of the process in question
	Holders, Waited []fasteners.Holder
}

func printSeen(path string, pid int) error {
	s := seen{PID: pid}
	var err error
	if s.Holders, err = fasteners.NewInterProcessLock(path).Holders(); err != nil {
		return err
	}
	var held *fasteners.HeldError
	if err := soonTimedOut(path); !errors.As(err, &held) {
		return fmt.Errorf("the wait has ended with %w", err)
	}
	s.Waited = held.Holders
	return json.NewEncoder(os.Stdout).Encode(s)
}

// In a PID namespace that sees the /proc of another one, a PID names another process there.
func TestHoldersWithForeignProc(t *testing.T) {
	canUnshare(t)
	var s seen
	must(t, json.Unmarshal([]byte(start(t, unshare(helperCommand(seenHelper, lockPath(t)))).line()), &s))
	for _, holders := range [][]fasteners.Holder{s.Holders, s.Waited} {
		if len(holders) != 1 || holders[0].PID != s.PID || holders[0].Command != "" {
			t.Errorf("holders are %+v, want process %d, and no command", holders, s.PID)
		}
	}
}

// reuseHelper takes a lock in a process that leaves it to a child, and has another process run
// under the PID of that one. It prints what it sees before and afterwards, with the PID of the
// child.
var reuseHelper = newHelper("reuse", func(_ *bufio.Reader, args []string) error {
	cmd := helperCommand(leaveHelper, args[0])
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	defer in.Close()
	if err := cmd.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return err
	}
	child, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return err
	}
	if err := cmd.Process.Kill(); err != nil {
		return err
	}
	dead := cmd.Process.Pid
	for { // until it is dead: a zombie, as nobody has waited for it
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", dead))
		if strings.Contains(string(stat), ") Z ") {
			break
		}
	}
	if err := printSeen(args[0], child); err != nil {
		return err
	}
	_, _ = cmd.Process.Wait()   // and not cmd.Wait, which closes the input of the child
	time.Sleep(2 * time.Second) // the lock tells whole seconds
	for {
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(dead-1)), 0); err != nil {
			return err
		}
		innocent := exec.Command("sleep", "600") // it dies with this PID namespace
		if err := innocent.Start(); err != nil {
			return err
		}
		if innocent.Process.Pid == dead {
			return printSeen(args[0], child)
		}
		_ = innocent.Process.Kill()
		_ = innocent.Wait()
	}
})

// A process that has ended and left its lock to a child is not named, nor is one that has its
// PID by now. The child is, by those who may look at its descriptors.
func TestHoldersAfterReuseOfPID(t *testing.T) {
	t.Parallel()
	skipProcessOwned(t)
	canUnshare(t)
	p := start(t, unshare(helperCommand(reuseHelper, lockPath(t)), "--mount-proc"))
	for _, what := range []string{"the holder is a zombie", "another process has its PID"} {
		var s seen
		must(t, json.Unmarshal([]byte(p.line()), &s))
		if len(s.Holders) != 1 || s.Holders[0].PID != s.PID {
			t.Errorf("%s: holders are %+v, want the child %d", what, s.Holders, s.PID)
		}
		if len(s.Waited) != 1 || s.Waited[0].PID != 0 || s.Waited[0].Command != "" || s.Waited[0].Since.IsZero() {
			t.Errorf("%s: in the error, holders are %+v, want an unknown one", what, s.Waited)
		}
	}
}

// Where the file system is not known to be local, too, this process is not another one.
func TestHoldersWhereNotLocal(t *testing.T) {
	const path = "/proc/self/comm" // a regular file, which only its owner may open for writing
	for _, v := range variants(path) {
		v.mustAcquire(t)
		holders := holdersOf(t, path)
		if len(holders) != 1 || holders[0].PID != os.Getpid() || holders[0].Shared != v.shared {
			t.Errorf("%s: holders are %+v, want this process", v.name, holders)
		}
		v.mustRelease(t)
		if holders := holdersOf(t, path); len(holders) > 0 {
			t.Errorf("%s: holders of a free lock: %+v", v.name, holders)
		}
	}
}

// This process holds the lock, though not through the table of its locks by path.
func TestHoldersByFileAndByPath(t *testing.T) {
	skipProcessOwned(t)
	path := lockPath(t)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	must(t, err)
	defer f.Close()
	byFile := fasteners.NewInterProcessLock("given", fasteners.WithFile(f), fasteners.WithTimeout(time.Millisecond))
	byPath := fasteners.NewInterProcessLock(path, fasteners.WithTimeout(time.Millisecond))
	for _, locks := range [][2]*fasteners.InterProcessLock{{byFile, byPath}, {byPath, byFile}} {
		must(t, locks[0].Acquire(background))
		for _, l := range locks {
			holders, err := l.Holders()
			must(t, err)
			if len(holders) != 1 || holders[0].PID != os.Getpid() || holders[0].Waiting {
				t.Errorf("holders are %+v, want this process", holders)
			}
		}
		var held *fasteners.HeldError
		if err := locks[1].Acquire(background); !errors.As(err, &held) || len(held.Holders) != 1 || held.Holders[0].PID != os.Getpid() {
			t.Errorf("error is %v, want one that names this process", err)
		}
		must(t, locks[0].Release())
		holders, err := locks[1].Holders()
		must(t, err)
		if len(holders) > 0 {
			t.Errorf("holders of a free lock: %+v", holders)
		}
	}
}

// The length of a range that another program locks is no time since the epoch of ours.
func TestHoldersOfForeignRange(t *testing.T) {
	skipProcessOwned(t)
	path := lockPath(t)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	must(t, err)
	defer f.Close()
	for _, length := range []int64{1 << 62, 1<<62 + 1, 1<<63 - 1, 0} {
		lk := unix.Flock_t{Type: unix.F_WRLCK, Len: length}
		must(t, unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lk))
		for _, holders := range [][]fasteners.Holder{
			holdersOf(t, path),
			checkHeldError(t, soonTimedOut(path), path, context.DeadlineExceeded),
		} {
			if len(holders) != 1 || !holders[0].Since.IsZero() || holders[0].PID != 0 && holders[0].PID != os.Getpid() {
				t.Errorf("length %d: holders are %+v", length, holders)
			}
		}
		lk = unix.Flock_t{Type: unix.F_UNLCK}
		must(t, unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lk))
	}
}

// A process that has several locks on the file is one holder.
func TestHolderWithManyLocks(t *testing.T) {
	path := lockPath(t)
	for range 10 {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
		must(t, err)
		defer f.Close()
		must(t, unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_RDLCK}))
	}
	holders := holdersOf(t, path)
	if len(holders) == 0 || holders[0].PID != os.Getpid() {
		t.Fatalf("holders are %+v, want this process", holders)
	}
	if _, err := os.ReadDir("/proc/1/fdinfo"); err != nil {
		return // the other locks can be of processes that we may not look at
	}
	if len(holders) > 1 {
		t.Errorf("holders are %+v, want one", holders)
	}
}

// A program and a lock file with names that another user has chosen: all that is printed is on one
// line, and safe.
func TestPrintableNames(t *testing.T) {
	dir := t.TempDir()
	const name = "a\n\x1b[2K\xff\u202e"
	exe, err := os.Executable()
	must(t, err)
	must(t, os.Symlink(exe, filepath.Join(dir, name)))
	path := filepath.Join(dir, "lock"+name)
	cmd := helperCommand(holdHelper, path, "write", "background")
	cmd.Path = filepath.Join(dir, name)
	if os.Getenv(emulatorVar) != "" {
		t.Skip("the program is the emulator")
	}
	p := start(t, cmd)
	p.expect("waiting", "held")

	var log syncBuffer
	noticed := make(chan []fasteners.Holder, 100)
	l := fasteners.NewInterProcessLock(path,
		fasteners.WithLogger(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{
			Level: slog.LevelDebug,
			ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr { // as a handler would that does not quote
				checkPrintable(t, a.Value.String())
				return a
			},
		}))),
		fasteners.WithWaitNotice(time.Millisecond, func(holders []fasteners.Holder) {
			select {
			case noticed <- holders:
			default:
			}
		}))
	ctx, cancel := context.WithCancel(background)
	acquired := make(chan error)
	go func() { acquired <- l.Acquire(ctx) }()
	holders := <-noticed
	cancel()
	err = <-acquired
	checkError(t, err, "acquire", path, context.Canceled)
	checkPrintable(t, err.Error())
	checkPrintable(t, fmt.Sprint(holders))
	if len(holders) != 1 || holders[0].PID != p.cmd.Process.Pid || holders[0].Command != name {
		t.Errorf("holders are %+v, want process %d with the command as it is", holders, p.cmd.Process.Pid)
	}
	err = l.Release()
	checkError(t, err, "release", path, fasteners.ErrNotAcquired)
	checkPrintable(t, err.Error())
	err = fasteners.NewInterProcessLock(filepath.Join(path, "below")).Acquire(background)
	checkError(t, err, "acquire", filepath.Join(path, "below"), syscall.ENOTDIR)
	checkPrintable(t, err.Error())
}

func checkPrintable(t *testing.T, text string) {
	t.Helper()
	for _, r := range text {
		if !unicode.IsGraphic(r) {
			t.Errorf("%q is not safe to print", text)
			return
		}
	}
	if !utf8.ValidString(text) {
		t.Errorf("%q is no UTF-8", text)
	}
}

// A waiter whose notice has asked who holds the lock has one descriptor, as every other waiter.
// Where locks belong to the process, closing the second one could drop the lock.
func TestDescriptorOfANotice(t *testing.T) {
	path := lockPath(t)
	p := startHolder(t, path, "exclusive")
	noticed := make(chan bool, 100)
	l := exclusive(path, fasteners.WithWaitNotice(time.Millisecond, func([]fasteners.Holder) { noticed <- true }))
	acquired := l.goAcquire(t, cancelable(t))
	<-noticed
	want := 1
	if posix.ForceProcessOwned.Load() {
		want = 2
	}
	if got := resources(path).lockFile; got != want {
		t.Errorf("%d descriptors of the lock file, want %d", got, want)
	}
	p.release()
	must(t, <-acquired)
	holdersOf(t, path)
	mustTryInProcess(t, path, "exclusive", false)
	l.mustRelease(t)
}

// Waits that end while their notices ask who holds the lock leave nothing behind. Each notice used
// to ask, one after the other, long after the end of its wait. This holder has no tag, so that
// an answer takes longer than a wait.
func TestNoticesOfShortWaits(t *testing.T) {
	path := lockPath(t)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	must(t, err)
	defer f.Close()
	must(t, unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}))
	l := exclusive(path, fasteners.WithTimeout(2*time.Millisecond),
		fasteners.WithWaitNotice(time.Millisecond, func([]fasteners.Holder) {}))
	before := resources(path)
	for range 200 {
		checkHeldError(t, l.acquire(background), path, context.DeadlineExceeded)
	}
	after := resources(path)
	t.Logf("%d goroutines more right after the last wait", after.goroutines-before.goroutines)
	for after.goroutines > before.goroutines || after.lockFile > before.lockFile {
		// until the goroutines of the notices have ended, and the descriptor of the free entry
		// is closed
		time.Sleep(time.Millisecond)
		after = resources(path)
	}
}
