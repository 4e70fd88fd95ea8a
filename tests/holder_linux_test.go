package tests

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

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

// A Python process is known by its PID, as the kernel tells, and by the name of the interpreter.
// soonTimedOut waits for a lock that is held, for a moment, and returns the error.
func soonTimedOut(path string) error {
	return exclusive(path, fasteners.WithTimeout(time.Millisecond)).acquire(background)
}

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

// A process of another PID namespace has another PID there, which an innocent process of this one
// may have.
func TestHoldersInAnotherPIDNamespace(t *testing.T) {
	asRoot(t)
	if out, err := exec.Command("unshare", "--pid", "--fork", "--mount-proc", "true").CombinedOutput(); err != nil {
		skipOrFail(t, "unshare(1): "+string(out))
	}
	unshared := func(h *helper, args ...string) *process {
		cmd := helperCommand(h, args...)
		unshare := []string{"unshare", "--pid", "--fork", "--kill-child", "--mount-proc", cmd.Path}
		cmd.Args = append(unshare, cmd.Args[1:]...)
		cmd.Path, _ = exec.LookPath("unshare")
		return start(t, cmd)
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
	if len(holders) != 1 || holders[0].PID != 0 {
		t.Errorf("a file that nobody may open: holders are %+v, want an unknown one", holders)
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
