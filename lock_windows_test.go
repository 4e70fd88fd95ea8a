package fasteners

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners/internal/locktable"
	"github.com/go-fasteners/fasteners/internal/stress"
)

// A release wakes waiters of other processes by an event. These tests acquire locks by events
// alone: if an event were lost, a waiter would wait forever, as it does not poll.

// lockByEvents acquires the lock as the table does, but without its timers.
func lockByEvents(ctx context.Context, path string, mode locktable.Mode) (release func() error, err error) {
	f, id, err := new(system).Create(path, mode, 0o666)
	if err != nil {
		return nil, err
	}
	release = func() error {
		if err := f.Unlock(); err != nil {
			return err
		}
		return f.Close()
	}
	if err := wait(ctx, f, id, mode); err != nil {
		_ = release()
		return nil, err
	}
	return release, nil
}

func wait(ctx context.Context, f locktable.File, id locktable.ID, mode locktable.Mode) (err error) {
	if ok, err := f.TryLock(mode); ok || err != nil {
		return err
	}
	released, stop := new(system).Watch(id, mode)
	defer func() { stop(err == nil) }()
	for {
		if mode == locktable.Exclusive {
			if err := f.LockPending(); err != nil {
				return err
			}
		}
		if ok, err := f.TryLock(mode); ok || err != nil {
			return err
		}
		select {
		case <-released:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Open files exclude and wake each other as processes do. No wake-up is lost when many of them
// acquire and release the lock, and give up waiting.
func TestNoLostWakeupsBetweenFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var holders atomic.Int64 // a reader counts 1, a writer 1000
	var wg sync.WaitGroup
	for range 6 {
		f, id, err := new(system).Create(path, locktable.Exclusive, 0o666)
		must(t, err)
		defer f.Close()
		hold := func(mode locktable.Mode, weight int64, timeout time.Duration) error {
			ctx, cancel := context.WithTimeout(context.Background(), timeout)
			defer cancel()
			err := wait(ctx, f, id, mode)
			if err == nil {
				if n := holders.Add(weight); n != 1000 && n > 6 {
					t.Errorf("sum over the holders is %d", n)
				}
				holders.Add(-weight)
			} else if ctx.Err() != nil {
				err = nil
			}
			return errors.Join(err, f.Unlock())
		}
		wg.Go(func() {
			for range stress.Rounds() {
				mode, weight, timeout := locktable.Shared, int64(1), time.Hour
				if rand.N(3) == 0 {
					mode, weight = locktable.Exclusive, 1000
				}
				if rand.N(3) == 0 {
					timeout = rand.N(time.Millisecond)
				}
				if err := hold(mode, weight, timeout); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// A writer locks pending, and for a moment main, to find out who holds the lock. It then wakes
// waiters, as one of them may have failed to acquire the lock at that moment.
func TestLockPendingWakesWaiters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var files [3]locktable.File
	var id locktable.ID
	for i := range files {
		var err error
		files[i], id, err = new(system).Create(path, locktable.Exclusive, 0o666)
		must(t, err)
		defer files[i].Close()
	}
	holder, waiter, pending := files[0], files[1], files[2]
	for _, test := range []struct{ holder, waiter locktable.Mode }{
		{locktable.Exclusive, locktable.Shared},
		{locktable.Shared, locktable.Exclusive},
	} {
		if ok, err := holder.TryLock(test.holder); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if ok, err := waiter.TryLock(test.waiter); ok || err != nil {
			t.Fatal(ok, err)
		}
		released, stop := new(system).Watch(id, test.waiter)
		must(t, pending.LockPending())
		<-released
		stop(true)
		must(t, errors.Join(pending.Unlock(), holder.Unlock()))
	}
}

// An eventProcess is a process that acquires locks by events alone. It communicates with the test
// through its standard input and output, in lines. It is killed when the test ends.
type eventProcess struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// eventProcessVar tells the test binary that it is an eventProcess, and what to do.
const eventProcessVar = "FASTENERS_TEST_EVENT_PROCESS"

// TestEventProcess does what an eventProcess does, and tests nothing by itself.
func TestEventProcess(t *testing.T) {
	do, args := os.Getenv(eventProcessVar), flag.Args()
	if do == "" {
		return
	}
	in, err := bufio.NewReader(os.Stdin), error(nil)
	switch do {
	case "wait":
		err = waitByEvents(in, args[0], eventModes[args[1]])
	case "loop":
		err = loopByEvents(in, args[0])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, do, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func startEventProcess(t *testing.T, do string, args ...string) *eventProcess {
	t.Helper()
	p := &eventProcess{t: t}
	p.cmd = exec.Command(os.Args[0], append([]string{"-test.run=^TestEventProcess$"}, args...)...)
	p.cmd.Env = append(os.Environ(), eventProcessVar+"="+do)
	p.cmd.Stderr = os.Stderr
	in, inErr := p.cmd.StdinPipe()
	out, outErr := p.cmd.StdoutPipe()
	must(t, errors.Join(inErr, outErr, p.cmd.Start()))
	p.in, p.out = in, bufio.NewReader(out)
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	})
	return p
}

func (p *eventProcess) say(line string) {
	p.t.Helper()
	_, err := io.WriteString(p.in, line+"\n")
	must(p.t, err)
}

// expect waits for the next line without a timeout: if the process hangs, the timeout of the test
// binary dumps all goroutines.
func (p *eventProcess) expect(want string) {
	p.t.Helper()
	if got, err := p.out.ReadString('\n'); strings.TrimSpace(got) != want {
		p.t.Fatalf("process says %q (%v), want %q", got, err, want)
	}
}

// finish ends the input of the process and waits for it to exit without an error.
func (p *eventProcess) finish() {
	p.t.Helper()
	p.in.Close()
	_, _ = io.Copy(io.Discard, p.out)
	must(p.t, p.cmd.Wait())
}

var eventModes = map[string]locktable.Mode{"read": locktable.Shared, "write": locktable.Exclusive}

// startEventWaiter starts a process that waits for a lock, which must be held, by events alone.
// When the process has acquired the lock, it waits for a line of input before it releases the lock.
// Before that, a line of input cancels the wait.
func startEventWaiter(t *testing.T, path, mode string) *eventProcess {
	t.Helper()
	p := startEventProcess(t, "wait", path, mode)
	p.expect("waiting")
	return p
}

func waitByEvents(in *bufio.Reader, path string, mode locktable.Mode) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var release func() error
	done := make(chan error, 1)
	go func() {
		var err error
		release, err = lockByEvents(ctx, path, mode)
		done <- err
	}()
	select {
	case <-done:
		return errors.New("the lock is free")
	case <-time.After(10 * time.Millisecond):
	}
	fmt.Println("waiting")
	lines := make(chan string)
	go func() {
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				os.Exit(0) // the test has ended
			}
			lines <- line
		}
	}()
	select {
	case err := <-done:
		if err != nil {
			return err
		}
		fmt.Println("held")
		<-lines
	case <-lines:
		cancel()
		if err := <-done; err != nil {
			return nil
		}
	}
	if err := release(); err != nil {
		return err
	}
	fmt.Println("released")
	return nil
}

func TestReleaseWakesWaiter(t *testing.T) {
	for _, test := range []struct{ ours, theirs string }{
		{"read", "write"}, {"write", "read"}, {"write", "write"},
	} {
		t.Run(test.ours+"/"+test.theirs, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "lock")
			release, err := lockByEvents(t.Context(), path, eventModes[test.ours])
			must(t, err)
			p := startEventWaiter(t, path, test.theirs)
			must(t, release())
			p.expect("held")
			done := make(chan error, 1)
			go func() {
				release, err := lockByEvents(t.Context(), path, eventModes[test.ours])
				if err == nil {
					err = release()
				}
				done <- err
			}()
			select {
			case err := <-done:
				t.Fatalf("acquiring the lock returned immediately (error %v), want it to block", err)
			case <-time.After(10 * time.Millisecond):
			}
			p.say("release")
			p.expect("released")
			must(t, <-done)
		})
	}
}

// A waiter that is canceled just as it is woken wakes another one. The canceled waiters are the
// first to wait, and therefore the first to be woken.
func TestCanceledWaiterWakesNext(t *testing.T) {
	for _, mode := range []string{"read", "write"} {
		for range 10 {
			path := filepath.Join(t.TempDir(), "lock")
			holder := NewInterProcessLock(path)
			must(t, holder.Acquire(t.Context()))
			canceled := []*eventProcess{startEventWaiter(t, path, mode), startEventWaiter(t, path, mode)}
			last := startEventWaiter(t, path, mode)
			canceled[0].say("cancel")
			must(t, holder.Release())
			canceled[1].say("cancel")
			last.expect("held")
			for _, p := range canceled {
				p.finish()
			}
			last.say("release")
			last.expect("released")
		}
	}
}

// After one release all waiting readers acquire the lock, as each of them wakes the next.
func TestReadersWakeReaders(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	holder := NewInterProcessLock(path)
	must(t, holder.Acquire(t.Context()))
	var readers []*eventProcess
	for range 4 {
		readers = append(readers, startEventWaiter(t, path, "read"))
	}
	must(t, holder.Release())
	for _, p := range readers {
		p.expect("held")
	}
	for _, p := range readers {
		p.say("release")
		p.expect("released")
	}
}

// No wake-up is lost when many processes acquire and release the lock, and give up waiting.
func TestNoLostWakeups(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var procs []*eventProcess
	for range 4 {
		procs = append(procs, startEventProcess(t, "loop", path))
	}
	for _, p := range procs {
		p.say("go")
	}
	for _, p := range procs {
		p.expect("done")
		p.finish()
	}
}

func loopByEvents(in *bufio.Reader, path string) error {
	if _, err := in.ReadString('\n'); err != nil {
		return err
	}
	for i := range 200 {
		mode, ctx, cancel := locktable.Exclusive, context.Background(), func() {}
		if i%3 == 1 {
			mode = locktable.Shared
		}
		if i%4 == 3 {
			ctx, cancel = context.WithTimeout(ctx, rand.N(10*time.Millisecond))
		}
		release, err := lockByEvents(ctx, path, mode)
		if err == nil {
			err = release()
		}
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
	fmt.Println("done")
	return nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
