package postgres_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/postgres"
	"github.com/go-fasteners/fasteners/postgres/internal/pgtest"
	"github.com/jackc/pgx/v5"
)

// helperEnv makes the test binary a helper process, which acquires the lock of a name on a server.
const helperEnv = "FASTENERS_POSTGRES_HELPER"

// helperMain acquires the lock, and looks at the context of the hold again and again. When that is done, it
// writes when it has last found it not to be, and what the release returns.
func helperMain() {
	url, name, _ := strings.Cut(os.Getenv(helperEnv), " ")
	config, err := pgx.ParseConfig(url)
	if err == nil {
		db := postgres.New(config, postgres.WithTTL(shortTTL))
		err = help(db, name)
	}
	if err != nil {
		fmt.Println(err)
	}
	os.Exit(0)
}

func help(db *postgres.DB, name string) error {
	fmt.Println("begins")
	held, release, err := postgres.NewLock(db, name).Hold(context.Background())
	if err != nil {
		return err
	}
	fmt.Println("held")
	var last time.Time
	for {
		now := time.Now()
		if held.Err() != nil {
			break
		}
		last = now
	}
	fmt.Println(last.UnixNano(), errors.Is(context.Cause(held), fasteners.ErrLost), errors.Is(release(), fasteners.ErrLost))
	return nil
}

// A helper is a process that holds a lock or waits for it.
type helper struct {
	t   *testing.T
	cmd *exec.Cmd
	out *bufio.Reader
}

func startHelper(t *testing.T, s *pgtest.Server, name string) *helper {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), helperEnv+"="+s.Config("").ConnString()+" "+name)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	h := &helper{t, cmd, bufio.NewReader(out)}
	t.Cleanup(h.kill)
	h.expect("begins")
	return h
}

func (h *helper) expect(want string) {
	h.t.Helper()
	if line := h.read(); line != want {
		h.t.Fatalf("helper: %q, want %q", line, want)
	}
}

func (h *helper) read() string {
	h.t.Helper()
	line, err := h.out.ReadString('\n')
	if err != nil && err != io.EOF {
		h.t.Fatal(err)
	}
	return strings.TrimSuffix(line, "\n")
}

func (h *helper) kill() {
	_ = h.cmd.Process.Kill()
	_ = h.cmd.Wait()
}

func (h *helper) signal(s syscall.Signal) {
	h.t.Helper()
	must(h.t, h.cmd.Process.Signal(s))
}

func TestKilledHolder(t *testing.T) {
	t.Parallel()
	s := commonServer(t)
	h := startHelper(t, s, t.Name())
	h.expect("held")
	lock := postgres.NewLock(newDB(t, s, postgres.WithTTL(shortTTL)), t.Name())
	acquired := goErr(func() error { return lock.Acquire(background) })
	awaitLocks(t, s.Connect(t), t.Name(), 1, 1)
	h.kill()
	must(t, <-acquired)
	must(t, lock.Release())
}

// TestKilledWaiter checks that the server notices that the process of a waiter has exited.
func TestKilledWaiter(t *testing.T) {
	t.Parallel()
	s := commonServer(t)
	admin := s.Connect(t)
	lock := postgres.NewLock(newDB(t, s), t.Name())
	must(t, lock.Acquire(background))
	h := startHelper(t, s, t.Name())
	awaitLocks(t, admin, t.Name(), 1, 1)
	h.kill()
	awaitLocks(t, admin, t.Name(), 1, 0)
	must(t, lock.Release())
}

// TestStoppedHolder checks that a process that was stopped for longer than the TTL finds its context done
// with the first look.
func TestStoppedHolder(t *testing.T) {
	t.Parallel()
	s := commonServer(t)
	lock := postgres.NewLock(newDB(t, s), t.Name())
	h := startHelper(t, s, t.Name())
	h.expect("held")
	h.signal(syscall.SIGSTOP)
	must(t, lock.Acquire(background))
	acquired := time.Now()
	h.signal(syscall.SIGCONT)
	var last int64
	var told, released bool
	line := h.read()
	if _, err := fmt.Sscan(line, &last, &told, &released); err != nil {
		t.Fatal(line, err)
	}
	if last >= acquired.UnixNano() || !told || !released {
		t.Errorf("the holder has found that it holds the lock %v after another process had acquired it; told %v, release %v",
			time.Unix(0, last).Sub(acquired), told, released)
	}
	must(t, lock.Release())
}
