//go:build unix || windows

package tests

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/internal/stress"
)

// knowsHolders reports whether the system tells which process holds a lock.
const knowsHolders = runtime.GOOS != "windows"

func holdersOf(t testing.TB, path string) []fasteners.Holder {
	t.Helper()
	holders, err := fasteners.NewInterProcessLock(path).Holders()
	must(t, err)
	return holders
}

// commandOf returns the command that the system should tell of a helper.
func commandOf(p *process) string { return filepath.Base(p.cmd.Path) }

// checkHolder checks what is known about a helper that holds the lock, or waits for it, since
// start.
func checkHolder(t testing.TB, h fasteners.Holder, p *process, shared, waiting bool, start time.Time) {
	t.Helper()
	if h.PID != p.cmd.Process.Pid || h.Command != commandOf(p) || h.Shared != shared ||
		h.Waiting != waiting || h.Opened || h.Caller {
		t.Errorf("holder is %+v, want process %d (%s), shared: %v, waiting: %v",
			h, p.cmd.Process.Pid, commandOf(p), shared, waiting)
	}
	// The kernel tells whole seconds.
	if h.Since.Before(start.Truncate(time.Second)) || h.Since.After(time.Now()) {
		t.Errorf("since %v, want a time from %v to %v", h.Since, start, time.Now())
	}
}

func TestHolders(t *testing.T) {
	if !knowsHolders {
		t.Skip("the system does not tell who holds a lock")
	}
	for _, variant := range variantNames {
		t.Run(variant, func(t *testing.T) {
			path := lockPath(t)
			if holders := holdersOf(t, path); len(holders) > 0 {
				t.Errorf("holders of a file that does not exist: %v", holders)
			}
			start := time.Now()
			p := startHolder(t, path, variant)
			holders := holdersOf(t, path)
			if len(holders) != 1 {
				t.Fatalf("holders are %v, want one", holders)
			}
			checkHolder(t, holders[0], p, variant == "read", false, start)
			p.kill()
			if holders := holdersOf(t, path); len(holders) > 0 {
				t.Errorf("holders after the death of the only one: %v", holders)
			}
		})
	}
}

// Of this process all goroutines are known, and it is not asked about as if it were another one.
func TestHoldersInThisProcess(t *testing.T) {
	for _, v := range variants(lockPath(t)) {
		t.Run(v.name, func(t *testing.T) {
			path := lockPath(t)
			v := variantNamed(path, v.name)
			start := time.Now()
			v.mustAcquire(t)
			writer := exclusive(path)
			acquired := writer.goAcquire(t, cancelable(t))
			for range 20 {
				holders := holdersOf(t, path)
				if len(holders) != 2 {
					t.Fatalf("holders are %v, want one, and one that waits", holders)
				}
				for i, h := range holders {
					if h.PID != os.Getpid() || h.Shared != (i == 0 && v.shared) || h.Waiting != (i == 1) ||
						h.Command == "" && knowsHolders ||
						h.Since.Before(start) || h.Since.After(time.Now()) {
						t.Errorf("holder %d is %+v", i, h)
					}
				}
			}
			if n := resources(path).lockFile; n > 2 {
				t.Errorf("%d descriptors of the lock file", n)
			}
			v.mustRelease(t)
			must(t, <-acquired)
			writer.mustRelease(t)
			if holders := holdersOf(t, path); len(holders) > 0 {
				t.Errorf("holders of a free lock: %v", holders)
			}
		})
	}
}

// To ask who holds a lock of this process does not drop it, nor does asking while it is acquired
// and released all the time.
func TestHoldersKeepsTheLock(t *testing.T) {
	path := lockPath(t)
	v := exclusive(path)
	v.mustAcquire(t)
	holdersOf(t, path)
	mustTryInProcess(t, path, "exclusive", false)
	v.mustRelease(t)

	done := make(chan error)
	go func() {
		v := writer(path)
		for range stress.Rounds() {
			if err := v.hold(background); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for {
		select {
		case err := <-done:
			must(t, err)
			return
		default:
			holdersOf(t, path)
		}
	}
}

// However many goroutines ask at the same time, the process has one descriptor for that.
func TestManyAskForHolders(t *testing.T) {
	path := lockPath(t)
	v := exclusive(path)
	v.mustAcquire(t)
	defer v.release()
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			for range stress.Rounds() {
				if holders, err := fasteners.NewInterProcessLock(path).Holders(); len(holders) != 1 || err != nil {
					t.Error(holders, err)
				}
			}
		})
	}
	wg.Wait()
	if n := resources(path).lockFile; n > 2 {
		t.Errorf("%d descriptors of the lock file", n)
	}
}

func TestHoldersOfBadPath(t *testing.T) {
	for _, path := range []string{"", "a\x00b", t.TempDir()} {
		holders, err := fasteners.NewInterProcessReaderWriterLock(path).Holders()
		var pathErr *fs.PathError
		if holders != nil || !errors.As(err, &pathErr) || pathErr.Op != "holders" || pathErr.Path != path {
			t.Errorf("%q: %v, %v", path, holders, err)
		}
	}
}

// checkHeldError checks that err is from a wait that the deadline has ended, and returns what it
// tells.
func checkHeldError(t testing.TB, err error, path string, target error) []fasteners.Holder {
	t.Helper()
	checkError(t, err, "acquire", path, target)
	var held *fasteners.HeldError
	if !errors.As(err, &held) {
		t.Fatalf("error %v has no HeldError", err)
	}
	return held.Holders
}

// The error of a wait tells which process holds the lock.
func TestHeldError(t *testing.T) {
	t.Parallel()
	for _, theirs := range variantNames {
		for _, ours := range variantNames {
			if theirs == "read" && ours == "read" {
				continue
			}
			t.Run(theirs+"/"+ours, func(t *testing.T) {
				path := lockPath(t)
				start := time.Now()
				p := startHolder(t, path, theirs)
				v := variantNamed(path, ours, fasteners.WithTimeout(20*time.Millisecond))
				err := v.acquire(background)
				holders := checkHeldError(t, err, path, context.DeadlineExceeded)
				if !os.IsTimeout(err) {
					t.Errorf("error %v is no timeout", err)
				}
				if !knowsHolders {
					want := "acquire " + path + ": held by an unknown process: context deadline exceeded"
					if len(holders) > 0 || err.Error() != want {
						t.Errorf("error is %v, holders are %v", err, holders)
					}
					return
				}
				if len(holders) != 1 {
					t.Fatalf("holders are %v, want one", holders)
				}
				checkHolder(t, holders[0], p, theirs == "read", false, start)
				text := fmt.Sprintf("acquire %s: held by process %d (%s)", path, p.cmd.Process.Pid, commandOf(p))
				const cause = ": context deadline exceeded"
				if got := err.Error(); !strings.HasPrefix(got, text) || !strings.HasSuffix(got, cause) {
					t.Errorf("error is %q, want %q", got, text+cause)
				}
			})
		}
	}
}

// If a goroutine of this process holds the lock, the error tells that, and whether it is a caller
// of the function that waits.
func TestHeldErrorInThisProcess(t *testing.T) {
	path := lockPath(t)
	lock := fasteners.NewInterProcessReaderWriterLock(path, fasteners.WithTimeout(time.Millisecond))
	other := fasteners.NewInterProcessLock(path, fasteners.WithTimeout(time.Millisecond))
	nothing := func(context.Context) error { return errors.New("fn was called") }
	must(t, fasteners.WithReadLock(background, lock, func(ctx context.Context) error {
		for _, caller := range []bool{false, true} {
			want := "held by this process: "
			waitCtx := background
			if caller {
				want = "held by the caller: locks are not reentrant: "
				var cancel context.CancelFunc
				waitCtx, cancel = context.WithCancel(ctx) // a context that is derived from it
				defer cancel()
			}
			for _, err := range []error{
				fasteners.WithWriteLock(waitCtx, lock, nothing),
				fasteners.WithLock(waitCtx, other, nothing),
			} {
				holders := checkHeldError(t, err, path, context.DeadlineExceeded)
				if len(holders) != 1 || holders[0].PID != os.Getpid() || holders[0].Caller != caller ||
					!holders[0].Shared {
					t.Errorf("holders are %+v", holders)
				}
				if text := err.Error(); !strings.Contains(text, want) {
					t.Errorf("error is %q, want %q", text, want)
				}
			}
		}
		return nil
	}))

	// A lock of another file is held by nobody's caller, and a lock that was released by no caller.
	var leaked context.Context
	must(t, fasteners.WithLock(background, fasteners.NewInterProcessLock(lockPath(t)), func(ctx context.Context) error {
		must(t, lock.AcquireWriteLock(background))
		defer lock.ReleaseWriteLock()
		leaked = ctx
		if holders := checkHeldError(t, other.Acquire(ctx), path, context.DeadlineExceeded); holders[0].Caller {
			t.Errorf("holders are %+v", holders)
		}
		return nil
	}))
	if err := leaked.Err(); err != context.Canceled {
		t.Errorf("after the release, the error of the context is %v", err)
	}
}

// errCause is the cause of the end of a context.
var errCause = errors.New("the program ends")

// The cause of the end of the context is in the error, for waits and if the context was done
// before.
func TestHeldErrorHasTheCause(t *testing.T) {
	path := lockPath(t)
	ctx, cancel := context.WithCancelCause(background)
	startHolder(t, path, "exclusive")
	acquired := exclusive(path).goAcquire(t, ctx)
	cancel(errCause)
	err := <-acquired
	checkHeldError(t, err, path, context.Canceled)
	checkError(t, err, "acquire", path, errCause)

	err = exclusive(lockPath(t)).acquire(ctx)
	if errors.As(err, new(*fasteners.HeldError)) || !errors.Is(err, context.Canceled) || !errors.Is(err, errCause) {
		t.Errorf("no wait: error is %v", err)
	}
}

// An error of the function that runs under the lock is no error of the wait.
func TestTimeoutOfTheWork(t *testing.T) {
	lock := fasteners.NewInterProcessLock(lockPath(t), fasteners.WithTimeout(time.Minute))
	for working := false; !working; { // on a busy machine the deadline can come before the work begins
		ctx, cancel := context.WithTimeout(background, 10*time.Millisecond)
		err := fasteners.WithLock(ctx, lock, func(ctx context.Context) error {
			working = true
			<-ctx.Done()
			return ctx.Err()
		})
		cancel()
		if working && err != context.DeadlineExceeded {
			t.Errorf("error is %v", err)
		}
	}
}

func TestHolderString(t *testing.T) {
	ago := func(d time.Duration) time.Time { return time.Now().Add(-d) }
	for want, h := range map[string]fasteners.Holder{
		"an unknown process":                      {},
		"process 17":                              {PID: 17},
		"process 17 (a) for 2m5s":                 {PID: 17, Command: "a", Since: ago(125*time.Second + time.Millisecond)},
		"process 17, which waits":                 {PID: 17, Waiting: true, Since: ago(time.Millisecond)},
		"this process for 3s":                     {PID: os.Getpid(), Command: "a", Since: ago(3 * time.Second)},
		"an unknown process for 4h0m0s":           {Since: ago(4 * time.Hour)},
		"process 17 (a), which has the file open": {PID: 17, Command: "a", Opened: true},
		"the caller: locks are not reentrant":     {PID: os.Getpid(), Caller: true},
	} {
		if got := h.String(); got != want {
			t.Errorf("%+v is %q, want %q", h, got, want)
		}
	}
	four := make([]fasteners.Holder, 4)
	err := &fasteners.HeldError{Holders: four, Err: errCause}
	want := "held by an unknown process, an unknown process, an unknown process, 1 more: the program ends"
	if got := err.Error(); got != want {
		t.Errorf("error is %q, want %q", got, want)
	}
}

// holdersHelper prints the holders of a lock, as it sees them.
var holdersHelper = newHelper("holders", func(_ *bufio.Reader, args []string) error {
	holders, err := fasteners.NewInterProcessLock(args[0]).Holders()
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(holders)
})

// What others have chosen, the names of programs and files, cannot control the terminal or forge a
// line, wherever it is printed.
func TestHolderIsPrintable(t *testing.T) {
	for command, want := range map[string]string{
		"backup":                         "process 17 (backup)",
		"a b":                            "process 17 (a b)",
		"a\nprocess 1":                   `process 17 (a\nprocess 1)`,
		"\x1b[2K\x1b]0;x\a":              `process 17 (\x1b[2K\x1b]0;x\a)`,
		"\xff\u202e":                     `process 17 (\xff\u202e)`,
		"a), process 1 (init":            `process 17 ("a), process 1 (init")`,
		"a\n) for 3h":                    `process 17 ("a\n) for 3h")`,
		"世界":                             "process 17 (世界)",
		strings.Repeat("\x9b", 3) + "\r": `process 17 (\x9b\x9b\x9b\r)`,
	} {
		h := fasteners.Holder{PID: 17, Command: command}
		if got := h.String(); got != want {
			t.Errorf("command %q: %q, want %q", command, got, want)
		}
		err := &fasteners.HeldError{Holders: []fasteners.Holder{h}, Err: errCause}
		if got, want := err.Error(), "held by "+want+": the program ends"; got != want {
			t.Errorf("command %q: error is %q, want %q", command, got, want)
		}
	}
}
