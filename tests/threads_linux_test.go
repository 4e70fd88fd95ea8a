package tests

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners/internal/posix"
)

// A process waits for more locks than it may have threads waiting in the kernel, and acquires all
// of them.
func TestMoreFilesThanThreads(t *testing.T) {
	dir := t.TempDir()
	n := 2 * posix.MaxWaits
	holder := startHelper(t, holdManyHelper, dir, strconv.Itoa(n))
	holder.expect("held")
	waiter := startHelper(t, waitForManyHelper, dir, strconv.Itoa(n))
	waiter.expect("waiting")
	// Not all threads of the process: the runtime has more, for other system calls, the more so on
	// a busy machine.
	threads := waiter.number()
	t.Logf("%d threads wait in the kernel", threads)
	if threads > posix.MaxWaits {
		t.Errorf("%d threads wait in the kernel, want %d at most", threads, posix.MaxWaits)
	}
	holder.finish()
	waiter.expect("all acquired")
}

var holdManyHelper = newHelper("hold many", func(in *bufio.Reader, args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	for i := range n {
		if err := exclusive(filepath.Join(args[0], strconv.Itoa(i))).acquire(background); err != nil {
			return err
		}
	}
	fmt.Println("held")
	_, _ = io.Copy(io.Discard, in)
	return nil
})

var waitForManyHelper = newHelper("wait for many", func(in *bufio.Reader, args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	go exitAtEOF(in)
	ctx, cancel := context.WithTimeout(background, time.Hour)
	defer cancel()
	var g group
	for i := range n {
		v := variants(filepath.Join(args[0], strconv.Itoa(i)))[i%3]
		g.Go(func() error { return v.hold(ctx) })
	}
	waitUntilWaiting(n)
	fmt.Println("waiting")
	fmt.Println(goroutinesIn(inKernel, inSystem))
	if err := g.Wait(); err != nil {
		return err
	}
	fmt.Println("all acquired")
	return nil
})

// limits keep the process that calls them from having more than a few threads.
var limits = map[string]func() error{
	"debug.SetMaxThreads": func() error { debug.SetMaxThreads(80); return nil },
	"RLIMIT_NPROC": func() error {
		if err := unix.Setrlimit(unix.RLIMIT_NPROC, &unix.Rlimit{Cur: 40, Max: 40}); err != nil {
			return err
		}
		if err := unix.Setresuid(limitedUser, limitedUser, limitedUser); err != nil { // root has no such limit
			return err
		}
		return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) // so that /proc tells that the file system is local
	},
	"cgroup": func() error { return nil }, // which the test has set
}

const limitedUser = 54321 // who has no other processes

var fewThreadsHelper = newHelper("few threads", func(in *bufio.Reader, args []string) error {
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	if err := os.Chdir(args[1]); err != nil { // whose path the other user may not search
		return err
	}
	fmt.Println("started")
	if _, err := in.ReadString('\n'); err != nil {
		return err
	}
	if err := limits[args[0]](); err != nil {
		return err
	}
	go exitAtEOF(in)
	var g group
	for i := range n {
		g.Go(func() error { return exclusive(strconv.Itoa(i)).hold(background) })
	}
	waitUntilWaiting(n)
	fmt.Println("waiting")
	if err := g.Wait(); err != nil {
		return err
	}
	fmt.Println("all acquired")
	return nil
})

// A process that may have few threads waits for more files than that. The runtime would end it if
// it could not make a thread.
func TestFewThreads(t *testing.T) {
	for name := range limits {
		t.Run(name, func(t *testing.T) {
			if name != "debug.SetMaxThreads" && os.Geteuid() != 0 {
				skipOrFail(t, "the rights of root")
			}
			dir := t.TempDir()
			must(t, os.Chmod(dir, 0o777))
			const n = 100
			holder := startHelper(t, holdManyHelper, dir, strconv.Itoa(n))
			holder.expect("held")
			waiter := startHelper(t, fewThreadsHelper, name, dir, strconv.Itoa(n))
			waiter.expect("started")
			if name == "cgroup" {
				limitByCgroup(t, waiter.cmd.Process.Pid, 60)
			}
			waiter.say("begin")
			waiter.expect("waiting")
			holder.finish()
			waiter.expect("all acquired")
		})
	}
}

// limitByCgroup limits the number of threads of a process, or skips the test.
func limitByCgroup(t *testing.T, pid, n int) {
	t.Helper()
	for _, root := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup"} {
		dir, err := os.MkdirTemp(root, "fasteners-test")
		if err != nil {
			continue
		}
		t.Cleanup(func() { // when the processes have left it
			for err := os.Remove(dir); err != nil && !os.IsNotExist(err); err = os.Remove(dir) {
				time.Sleep(time.Millisecond)
			}
		})
		err = os.WriteFile(filepath.Join(dir, "pids.max"), []byte(strconv.Itoa(n)), 0)
		if err != nil {
			continue // no controller of PIDs there
		}
		must(t, os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0))
		return
	}
	skipOrFail(t, "a cgroup that limits threads, and the right to make one")
}

// The threads of many waits end with these.
func TestThreadsEnd(t *testing.T) {
	if locksAreProcessOwned() {
		return // nobody waits in the kernel
	}
	dir := t.TempDir()
	const n = 100
	holder := startHelper(t, holdManyHelper, dir, strconv.Itoa(n))
	holder.expect("held")
	waiter := startHelper(t, threadsHelper, dir, strconv.Itoa(n))
	waiter.expect("waiting")
	waiting := waiter.number()
	holder.finish()
	t.Logf("%d threads, then %d", waiting, waiter.number())
}

// threads returns how many threads this process has.
func threads() int {
	tasks, _ := os.ReadDir("/proc/self/task")
	return len(tasks)
}

// threadsHelper tells how many threads there are while it waits for many files, and how many are
// left when most of them have ended.
var threadsHelper = newHelper("threads", func(in *bufio.Reader, args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	go exitAtEOF(in)
	var g group
	for i := range n {
		g.Go(func() error { return exclusive(filepath.Join(args[0], strconv.Itoa(i))).hold(background) })
	}
	waitUntilWaiting(n)
	fmt.Println("waiting")
	before := threads()
	fmt.Println(before)
	if err := g.Wait(); err != nil {
		return err
	}
	after := threads()
	for after > before-n/2 { // until the threads have ended, which they do a moment after their waits
		time.Sleep(time.Millisecond)
		after = threads()
	}
	fmt.Println(after)
	return nil
})
