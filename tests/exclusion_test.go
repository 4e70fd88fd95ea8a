//go:build unix || windows

package tests

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/internal/stress"
)

// Any two variants of a lock exclude or admit each other, under whatever path each of them opens
// the file.
func TestExclusion(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "lock")
	must(t, os.WriteFile(path, nil, 0o666))
	t.Chdir(dir)
	paths := map[string]string{
		"same path":     path,
		"relative path": "lock",
		"unclean path":  filepath.Join(dir, ".") + string(filepath.Separator) + "." + string(filepath.Separator) + "lock",
	}
	if err := os.Link(path, path+".hard"); err == nil {
		paths["hard link"] = path + ".hard"
	}
	must(t, os.Symlink(path, path+".soft"))
	if _, err := os.Lstat(path + ".soft"); err == nil {
		paths["symbolic link"] = path + ".soft"
	}

	for name, other := range paths {
		for _, a := range variants(path) {
			for _, b := range variants(other) {
				t.Run(fmt.Sprintf("%s/%s/%s", name, a.name, b.name), func(t *testing.T) {
					checkExclusion(t, a, b)
				})
			}
			if name == "same path" {
				t.Run(fmt.Sprintf("same handle/%s", a.name), func(t *testing.T) {
					checkExclusion(t, a, a)
				})
			}
		}
	}
}

func checkExclusion(t *testing.T, a, b variant) {
	t.Helper()
	a.mustAcquire(t)
	if a.shared && b.shared {
		b.mustAcquire(t)
		b.mustRelease(t)
		b.mustTry(t, true)
		a.mustRelease(t)
		return
	}
	b.mustTry(t, false)
	b.mustTry(t, false) // the first try has not dropped the lock
	done := b.goAcquire(t, background)
	a.mustRelease(t)
	must(t, <-done)
	a.mustTry(t, false)
	b.mustRelease(t)
	a.mustTry(t, true)
}

func TestExclusionBetweenProcesses(t *testing.T) {
	t.Parallel()
	for _, theirs := range variantNames {
		for _, waitMode := range waitModes {
			path := lockPath(t)
			for _, ours := range variants(path) {
				t.Run(theirs+"/"+ours.name+"/"+waitMode, func(t *testing.T) {
					ctx := testContext(t, waitMode)
					p := startHolder(t, path, theirs)
					if theirs == "read" && ours.shared {
						ours.mustTry(t, true)
						must(t, ours.hold(ctx))
						p.release()
						return
					}
					ours.mustTry(t, false)
					done := ours.goAcquire(t, ctx)
					p.release()
					must(t, <-done)

					p = startWaiter(t, path, theirs, waitMode)
					ours.mustRelease(t)
					p.expect("held")
					ours.mustTry(t, false)
				})
			}
		}
	}
}

// While some goroutines hold the read lock of a handle, none holds the write lock; and at most one
// goroutine holds the write lock.
func TestReadersAndWritersOfOneHandle(t *testing.T) {
	const (
		readers, writers = 6, 2
		weight           = 10000 // of a writer; a reader counts 1
	)
	l := fasteners.NewInterProcessReaderWriterLock(lockPath(t))
	var holders atomic.Int64
	hold := func(v variant, weight int64, allowed func(sum int64) bool) error {
		for range stress.Rounds() {
			if err := v.acquire(background); err != nil {
				return err
			}
			if sum := holders.Add(weight); !allowed(sum) {
				t.Errorf("sum over the holders is %d", sum)
			}
			holders.Add(-weight)
			if err := v.release(); err != nil {
				return err
			}
		}
		return nil
	}
	var g group
	for range readers {
		g.Go(func() error {
			return hold(readerOf(l), 1, func(sum int64) bool { return sum <= readers })
		})
	}
	for range writers {
		g.Go(func() error {
			return hold(writerOf(l), weight, func(sum int64) bool { return sum == weight })
		})
	}
	must(t, g.Wait())
}

// An eventLog orders the events of several processes. All of them write to one pipe, so the order
// is that of the kernel. A holder logs "acquired" after it has acquired the lock and "releasing"
// before it releases the lock: if these intervals do not overlap, the holds do not either.
type eventLog struct {
	lines  chan string
	w      *os.File
	procs  []*exec.Cmd
	stdins []io.Closer
}

func newEventLog(t *testing.T) *eventLog {
	r, w, err := os.Pipe()
	must(t, err)
	l := &eventLog{lines: make(chan string, 100), w: w}
	go func() {
		defer close(l.lines)
		defer r.Close()
		for sc := bufio.NewScanner(r); sc.Scan(); {
			l.lines <- sc.Text()
		}
	}()
	return l
}

// start starts a process that writes to the log. The process must read its standard input to the
// end before it begins, so that all processes begin at the same time.
func (l *eventLog) start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	in, err := cmd.StdinPipe()
	must(t, err)
	cmd.Stdout = l.w
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	l.procs = append(l.procs, cmd)
	l.stdins = append(l.stdins, in)
	t.Cleanup(func() { cmd.Process.Kill() })
}

// run lets the processes begin, and calls handle for each event until the last process has exited.
func (l *eventLog) run(t *testing.T, handle func(event []string)) {
	t.Helper()
	for _, in := range l.stdins {
		in.Close()
	}
	l.w.Close()
	for line := range l.lines {
		handle(strings.Fields(line))
	}
	for _, cmd := range l.procs {
		must(t, cmd.Wait())
	}
}

// waitForStart is for helpers that write to an eventLog.
func waitForStart(in *bufio.Reader) error {
	_, err := io.Copy(io.Discard, in)
	return err
}

// Goroutines of several processes acquire a lock through handles of all kinds and under several
// paths. Their holds do not overlap, except those of readers, and no update of a file that the
// lock protects is lost.
func TestHoldIntervals(t *testing.T) {
	t.Parallel()
	processes := 8
	if testing.Short() {
		// Wine closes no descriptor of a file while anybody has a lock on it. With many processes
		// somebody always has one, and what it keeps slows it down until the test does not end.
		processes = 3
	}
	path := lockPath(t)
	must(t, os.WriteFile(path, nil, 0o666))
	counter := newCounter(t)
	paths := []string{path}
	if err := os.Link(path, path+".hard"); err == nil {
		paths = append(paths, path+".hard")
	}
	if err := os.Symlink(path, path+".soft"); err == nil {
		if _, err := os.Lstat(path + ".soft"); err == nil {
			paths = append(paths, path+".soft")
		}
	}
	log := newEventLog(t)
	for i := range processes {
		startIntervals(t, log, paths[i%len(paths)], counter)
	}
	checkIntervals(t, log, counter)
}

// checkIntervals runs the processes of log, which use one lock file that is never replaced.
func checkIntervals(t *testing.T, log *eventLog, counter string) {
	t.Helper()
	var readers, writers, maxReaders, writes int
	log.run(t, func(event []string) {
		switch strings.Join(event, " ") {
		case "acquired read":
			readers++
			maxReaders = max(maxReaders, readers)
		case "releasing read":
			readers--
		case "acquired write":
			writers++
			writes++
		case "releasing write":
			writers--
		default:
			t.Fatalf("unknown event %q", event)
		}
		if writers > 1 || writers == 1 && readers > 0 {
			t.Errorf("%d writers and %d readers hold the lock", writers, readers)
		}
	})
	content, err := os.ReadFile(counter)
	must(t, err)
	if got := string(content); got != strconv.Itoa(writes) {
		t.Errorf("counter is %s after %d increments", got, writes)
	}
	t.Logf("%d increments, up to %d simultaneous readers", writes, maxReaders)
}

// newCounter creates a file that contains a number.
func newCounter(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "counter")
	must(t, os.WriteFile(path, []byte("0"), 0o666))
	return path
}

func increment(counter string) error {
	content, err := os.ReadFile(counter)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(string(content))
	if err != nil {
		return err
	}
	return os.WriteFile(counter, strconv.AppendInt(nil, int64(n+1), 10), 0o666)
}

func startIntervals(t *testing.T, log *eventLog, path, counter string) {
	t.Helper()
	log.start(t, helperCommand(intervalsHelper, path, counter))
}

var intervalsHelper = newHelper("intervals", func(in *bufio.Reader, args []string) error {
	path, counter := args[0], args[1]
	shared := variants(path)
	if err := waitForStart(in); err != nil {
		return err
	}
	var g group
	for i := range 8 {
		v := variants(path)[i%3]
		if i < 4 {
			v = shared[i%3]
		}
		g.Go(func() error {
			for j := range stress.Rounds() {
				if err := logHold(v, counter, i+j); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
})

// logHold acquires the lock in the n-th of several ways, and logs the hold.
func logHold(v variant, counter string, n int) error {
	for ok := false; !ok; {
		var err error
		if ok, err = acquireSomehow(v, n); err != nil {
			return err
		}
	}
	var err error
	if v.shared {
		fmt.Println("acquired read")
		runtime.Gosched()
		fmt.Println("releasing read")
	} else {
		fmt.Println("acquired write")
		err = increment(counter)
		fmt.Println("releasing write")
	}
	return errors.Join(err, v.release()) // also after an error, as others wait for the lock
}

func acquireSomehow(v variant, n int) (ok bool, err error) {
	ctx, cancel := background, func() {}
	switch n % 4 {
	case 0:
	case 1:
		ctx, cancel = context.WithCancel(background)
	case 2:
		ctx, cancel = context.WithTimeout(background, rand.N(5*time.Millisecond))
	case 3:
		ok, err := v.try()
		if !ok {
			time.Sleep(rand.N(time.Millisecond)) // a tight loop would keep a core busy
		}
		return ok, err
	}
	defer cancel()
	err = v.acquire(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return false, nil
	}
	return err == nil, err
}
