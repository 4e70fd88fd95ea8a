package itest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/etcd"
	"github.com/go-fasteners/fasteners/etcd/itest/cluster"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestMembersFail kills or stops a member, the leader or another, while a lock is held and waited for. It
// is released and passed on.
func TestMembersFail(t *testing.T) {
	t.Parallel()
	members := processes(t, 3, true)
	c, other := newClient(t, addrs(members)...), newClient(t, addrs(members)...)
	const long = 20 * time.Second
	a, b := etcd.NewLock(newSession(t, c, etcd.WithTTL(long)), "members"), etcd.NewLock(newSession(t, other, etcd.WithTTL(long)), "members")
	for _, how := range []string{"kill leader", "stop leader", "kill follower", "stop follower"} {
		must(t, a.Acquire(bg))
		acquired := inBackground(func() error { return b.Acquire(bg) })
		awaitKeys(t, c, "members", 2)
		m, err := cluster.Leader(bg, c, members)
		must(t, err)
		if strings.HasSuffix(how, "follower") {
			i := slices.Index(members, m)
			m = members[(i+1)%len(members)]
		}
		kill := strings.HasPrefix(how, "kill")
		if kill {
			m.Kill()
		} else {
			m.Stop()
		}
		if err := a.Release(); err != nil {
			t.Error(how, err)
		}
		must(t, <-acquired)
		if kill {
			must(t, m.Start())
		} else {
			m.Continue()
		}
		if err := b.Release(); err != nil {
			t.Error(how, err)
		}
	}
}

// TestRestart keeps the only member down until the holder is told, and starts it again. The member gives
// the lease its time anew, but as the holder has released the lock, the next one gets it.
func TestRestart(t *testing.T) {
	t.Parallel()
	m := processes(t, 1, false)[0]
	c := newClient(t, m.Addr())
	l := etcd.NewLock(newSession(t, c), "restart")
	held, release, err := l.Hold(bg)
	must(t, err)
	m.Kill()
	<-held.Done()
	if err := release(); !errors.Is(err, fasteners.ErrLost) {
		t.Error(err)
	}
	acquired := inBackground(func() error { return l.Acquire(bg) })
	must(t, m.Start())
	must(t, <-acquired)
	must(t, l.Release())
}

// TestStoppedHolder stops the process of a holder for longer than the lease, and checks that it then does
// not take itself to be the holder even for one look at its context.
func TestStoppedHolder(t *testing.T) {
	t.Parallel()
	addr := embedded(t)
	c := newClient(t, addr)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperVariable+"="+addr)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(stdout)
	if !lines.Scan() || lines.Text() != "held" {
		t.Fatal(lines.Text(), lines.Err())
	}
	must(t, cmd.Process.Signal(syscall.SIGSTOP))
	next := etcd.NewLock(newSession(t, c), "stopped")
	must(t, next.Acquire(bg))
	must(t, cmd.Process.Signal(syscall.SIGCONT))
	for lines.Scan() {
		t.Error(lines.Text())
	}
	must(t, cmd.Wait())
	must(t, next.Release())
}

const helperVariable = "FASTENERS_TEST_HOLDER"

// runHelper holds a lock and looks at its context until that is done, in a process that TestStoppedHolder
// started. It prints what is wrong.
func runHelper() {
	addr := os.Getenv(helperVariable)
	if addr == "" {
		return
	}
	c, err := cluster.Client([]string{addr})
	exitOn(err)
	held, release, err := etcd.NewLock(etcd.NewSession(c, etcd.WithTTL(ttl)), "stopped").Hold(bg)
	exitOn(err)
	fmt.Println("held")
	// Of two looks that are longer apart than the lease, the second is after the stop.
	for last := time.Now(); ; {
		begun := time.Now()
		lost := held.Err() != nil
		stopped := begun.Sub(last) >= ttl
		if stopped && !lost {
			fmt.Println("a look at the context has passed after the stop")
		}
		if lost {
			break
		}
		last = begun
	}
	if cause := context.Cause(held); !errors.Is(cause, fasteners.ErrLost) {
		fmt.Println("cause: ", cause)
	}
	if _, err := etcd.Commit(context.WithoutCancel(held), clientv3.OpPut("stopped", "")); !errors.Is(err, fasteners.ErrLost) {
		fmt.Println("guarded write: ", err)
	}
	if err := release(); !errors.Is(err, fasteners.ErrLost) {
		fmt.Println("release: ", err)
	}
	os.Exit(0)
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
