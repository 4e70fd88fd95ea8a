package sigtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/internal/posix"
)

// helperVar makes the test binary run the helper instead of the tests.
const helperVar = "FASTENERS_TEST_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(helperVar) == "" {
		os.Exit(m.Run())
	}
	if err := wait(os.Args[1], os.Args[2], os.Args[3] == "blocked", os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, "helper:", err)
		os.Exit(1)
	}
}

// wait cancels a wait for the lock on path, and then waits without end.
func wait(path, disposition string, blocked bool, form string) error {
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(3) // the test has ended
	}()
	posix.ForceProcessOwned.Store(form == "process-owned")
	if err := Dispositions[disposition].Set(); err != nil {
		return err
	}
	var err error
	threadErr := CallOnThread(blocked, func() {
		l := fasteners.NewInterProcessLock(path)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		defer cancel()
		if err = l.Acquire(ctx); !errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("error is %v", err)
			return
		}
		fmt.Println("canceled")
		if err = l.Acquire(context.Background()); err != nil {
			return
		}
		fmt.Println("held")
		var mask unix.Sigset_t
		err = unix.PthreadSigmask(unix.SIG_BLOCK, nil, &mask)
		if isBlocked := mask.Val[0]&(1<<(unix.SIGURG-1)) != 0; err == nil && blocked && !isBlocked {
			err = errors.New("SIGURG is not blocked any more")
		}
	})
	return errors.Join(err, threadErr)
}

// A wait ends with its context, whatever C code makes of SIGURG.
func TestSIGURG(t *testing.T) {
	for disposition, d := range Dispositions {
		for _, mask := range []string{"not blocked", "blocked"} {
			for _, form := range []string{"open file description", "process-owned"} {
				t.Run(strings.Join([]string{disposition, mask, form}, "/"), func(t *testing.T) {
					t.Parallel() // most of the time is waiting
					path := filepath.Join(t.TempDir(), "lock")
					holder := fasteners.NewInterProcessLock(path)
					if err := holder.Acquire(t.Context()); err != nil {
						t.Fatal(err)
					}
					exe, err := os.Executable()
					if err != nil {
						t.Fatal(err)
					}
					cmd := exec.Command(exe, path, disposition, mask, form)
					cmd.Env = append(os.Environ(), helperVar+"=wait")
					if mask == "blocked" {
						// Without this setting the runtime unblocks SIGURG before it calls Go code.
						cmd.Env = append(cmd.Env, "GODEBUG=asyncpreemptoff=1")
					}
					cmd.Stderr = os.Stderr
					in, inErr := cmd.StdinPipe()
					out, outErr := cmd.StdoutPipe()
					if err := errors.Join(inErr, outErr, cmd.Start()); err != nil {
						t.Fatal(err)
					}
					defer in.Close()
					lines := bufio.NewScanner(out)
					expect := func(want string) {
						t.Helper()
						if !lines.Scan() || lines.Text() != want {
							t.Fatalf("process says %q, want %q", lines.Text(), want)
						}
					}
					expect("canceled")
					if d.Interrupts && form != "process-owned" {
						waitForWaiter(t, path)
					}
					if err := holder.Release(); err != nil {
						t.Fatal(err)
					}
					expect("held")
					if err := cmd.Wait(); err != nil {
						t.Error(err)
					}
				})
			}
		}
	}
}

// waitForWaiter returns when somebody waits for the lock in the kernel.
func waitForWaiter(t *testing.T, path string) {
	t.Helper()
	st, err := posix.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	blocked := func(l posix.Lock) bool { return l.Blocked }
	for {
		if locks, _ := posix.LocksOf(st.Dev, st.Ino, nil); slices.ContainsFunc(locks, blocked) {
			return
		}
		time.Sleep(time.Millisecond)
	}
}
