package itest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/etcd"
	"github.com/go-fasteners/fasteners/etcd/itest/cluster"
	"github.com/go-fasteners/fasteners/internal/enginetest/must"
	"github.com/go-fasteners/fasteners/internal/enginetest/process"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestMembersFail kills or stops a member, the leader or another, while a lock is held and waited
// for. It is released and passed on.
func TestMembersFail(t *testing.T) {
	t.Parallel()
	members := newMembers(t, 3, true)
	c, other := newClient(t, addrs(members)...), newClient(t, addrs(members)...)
	const long = 20 * time.Second
	a := etcd.NewLock(newSession(t, c, etcd.WithTTL(long)), "members")
	b := etcd.NewLock(newSession(t, other, etcd.WithTTL(long)), "members")
	for _, how := range []string{"kill leader", "stop leader", "kill follower", "stop follower"} {
		must.Succeed(t, a.Acquire(background))
		acquired := must.Go(func() error { return b.Acquire(background) })
		awaitKeys(t, c, "members", 2)
		m, err := cluster.Leader(background, c, members)
		must.Succeed(t, err)
		if strings.HasSuffix(how, "follower") {
			i := slices.Index(members, m)
			m = members[(i+1)%len(members)]
		}
		kill := strings.HasPrefix(how, "kill")
		if kill {
			m.Kill()
		} else {
			must.Succeed(t, m.Stop())
		}
		if err := a.Release(); err != nil {
			t.Error(how, err)
		}
		must.Succeed(t, <-acquired)
		if kill {
			must.Succeed(t, m.Start())
		} else {
			must.Succeed(t, m.Continue())
		}
		if err := b.Release(); err != nil {
			t.Error(how, err)
		}
	}
}

// TestRestart keeps the only member down until the holder is told, and starts it again. The
// member gives the lease its time anew, but as the holder has released the lock, the next one
// gets it.
func TestRestart(t *testing.T) {
	t.Parallel()
	m := newMembers(t, 1, false)[0]
	c := newClient(t, m.Addr())
	l := etcd.NewLock(newSession(t, c), "restart")
	held, release, err := l.Hold(background)
	must.Succeed(t, err)
	m.Kill()
	<-held.Done()
	if err := release(); !errors.Is(err, fasteners.ErrLost) {
		t.Error(err)
	}
	acquired := must.Go(func() error { return l.Acquire(background) })
	must.Succeed(t, m.Start())
	must.Succeed(t, <-acquired)
	must.Succeed(t, l.Release())
}

// TestStoppedHolder stops the process of a holder for longer than the lease, and checks that it
// then does not take itself to be the holder even for one look at its context.
func TestStoppedHolder(t *testing.T) {
	t.Parallel()
	addr := embedded(t)
	c := newClient(t, addr)
	holder := process.NewSelf(t, "holder", addr)
	holder.Expect(t, "held")
	must.Succeed(t, holder.Stop())
	next := etcd.NewLock(newSession(t, c), "stopped")
	must.Succeed(t, next.Acquire(background))
	must.Succeed(t, holder.Continue())
	for line, ok := holder.Line(); ok; line, ok = holder.Line() {
		t.Error(line)
	}
	must.Succeed(t, holder.Wait())
	must.Succeed(t, next.Release())
}

// runHolder holds a lock and looks at its context until that is done, in a process that
// TestStoppedHolder started. It prints what is wrong.
func runHolder(args []string) error {
	c, err := cluster.Client(args)
	if err != nil {
		return err
	}
	held, release, err := etcd.NewLock(etcd.NewSession(c, etcd.WithTTL(ttl)), "stopped").Hold(background)
	if err != nil {
		return err
	}
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
	_, err = etcd.Commit(context.WithoutCancel(held), clientv3.OpPut("stopped", ""))
	if !errors.Is(err, fasteners.ErrLost) {
		fmt.Println("guarded write: ", err)
	}
	if err := release(); !errors.Is(err, fasteners.ErrLost) {
		fmt.Println("release: ", err)
	}
	return nil
}
