package itest

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/etcd"
	"github.com/go-fasteners/fasteners/internal/enginetest/faultproxy"
	"github.com/go-fasteners/fasteners/internal/enginetest/must"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestCutOff cuts a holder off, and checks that its context is done before the next one has the
// lock, and that what it writes after that is refused.
func TestCutOff(t *testing.T) {
	t.Parallel()
	addr := embedded(t)
	for name, fail := range map[string]func(*faultproxy.Proxy){
		"nothing arrives":        func(p *faultproxy.Proxy) { p.Forward(false, false) },
		"no request arrives":     func(p *faultproxy.Proxy) { p.Forward(false, true) },
		"no answer arrives":      func(p *faultproxy.Proxy) { p.Forward(true, false) },
		"no connection":          func(p *faultproxy.Proxy) { p.Forward(false, false); p.Cut() },
		"answers late, then cut": func(p *faultproxy.Proxy) { p.Forward(false, false) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proxy := newProxies(t, addr)[0]
			far, near := newClient(t, proxy.Addr()), newClient(t, addr)
			held, release, err := etcd.NewLock(newSession(t, far), name).Hold(background)
			must.Succeed(t, err)
			done := held.Done()
			if name == "answers late, then cut" {
				proxy.Delay(300 * time.Millisecond)
			}
			next := etcd.NewLock(newSession(t, near), name)
			acquired := must.Go(func() error { return next.Acquire(background) })
			awaitKeys(t, near, name, 2)
			time.Sleep(rand.N(ttl / 2)) // the lease may be kept alive, or not, when the connection fails
			if held.Err() != nil {
				t.Fatal("lost before the cut: ", context.Cause(held))
			}
			fail(proxy)
			must.Succeed(t, <-acquired)
			select {
			case <-done:
			default:
				t.Error("the next one has the lock, and the holder has not been told")
			}
			if cause := context.Cause(held); !errors.Is(cause, fasteners.ErrLost) {
				t.Error(cause)
			}
			proxy.Forward(true, true)
			for { // a connection may have to be made again
				_, err := etcd.Commit(context.WithoutCancel(held), clientv3.OpPut("cut off", ""))
				if err == nil {
					t.Fatal("a write of a former holder is not refused")
				}
				if errors.Is(err, fasteners.ErrLost) {
					break
				}
			}
			if err := release(); !errors.Is(err, fasteners.ErrLost) {
				t.Error(err)
			}
			must.Succeed(t, next.Release())
		})
	}
}

// TestLateAnswers holds a lock for longer than the TTL while each answer takes more than a third
// of that.
func TestLateAnswers(t *testing.T) {
	t.Parallel()
	addr := embedded(t)
	proxy := newProxies(t, addr)[0]
	far, near := newClient(t, proxy.Addr()), newClient(t, addr)
	l := etcd.NewLock(newSession(t, far, etcd.WithTTL(6*time.Second)), "late")
	held, release, err := l.Hold(background)
	must.Succeed(t, err)
	proxy.Delay(2200 * time.Millisecond)
	next := etcd.NewLock(newSession(t, near), "late")
	acquired := must.Go(func() error { return next.Acquire(background) })
	select {
	case <-acquired:
		t.Fatal("two holders")
	case <-held.Done():
		t.Fatal(context.Cause(held))
	case <-time.After(10 * time.Second):
	}
	must.Succeed(t, release())
	must.Succeed(t, <-acquired)
}

// TestDeadLinks lets the links of a client to the members of a cluster die, one after the other.
// The holder keeps the lock for longer than the TTL, and can release it; and a waiter gets the
// lock.
func TestDeadLinks(t *testing.T) {
	t.Parallel()
	members := newMembers(t, 3, true)
	proxies := newProxies(t, addrs(members)...)
	far, near := newClient(t, addrs(proxies)...), newClient(t, addrs(members)...)
	s := newSession(t, far, etcd.WithTTL(8*time.Second))
	held, other := etcd.NewLock(s, "held"), etcd.NewLock(newSession(t, near), "waited for")
	waiter := etcd.NewLock(s, "waited for")
	for i, p := range proxies {
		ctx, release, err := held.Hold(background)
		must.Succeed(t, err)
		must.Succeed(t, other.Acquire(background))
		acquired := must.Go(func() error { return waiter.Acquire(background) })
		awaitKeys(t, near, "waited for", 2)
		p.Forward(false, false)
		for range proxies { // the request for the lease may go to any of them
			l := etcd.NewLock(newSession(t, far), "new")
			must.Succeed(t, l.Acquire(background))
			must.Succeed(t, l.Release())
		}
		select {
		case <-ctx.Done():
			t.Errorf("link %d: %v", i, context.Cause(ctx))
		case <-time.After(9 * time.Second):
		}
		must.Succeed(t, other.Release())
		must.Succeed(t, <-acquired)
		must.Succeed(t, waiter.Release())
		must.Succeed(t, release())
		p.Forward(true, true)
	}
}

// TestCanceledBehindDeadLink cancels an acquire on a connection that is dead until later.
func TestCanceledBehindDeadLink(t *testing.T) {
	t.Parallel()
	addr := embedded(t)
	proxy := newProxies(t, addr)[0]
	far, near := newClient(t, proxy.Addr()), newClient(t, addr)
	l := etcd.NewLock(newSession(t, far, etcd.WithTTL(time.Minute)), "dead")
	next := etcd.NewLock(newSession(t, near), "dead")
	for _, requests := range []bool{true, false} {
		must.Succeed(t, l.Acquire(background))
		must.Succeed(t, l.Release())
		proxy.Forward(requests, false)
		ctx, cancel := context.WithCancel(background)
		err := must.Go(func() error { return l.Acquire(ctx) })
		if requests {
			awaitKeys(t, near, "dead", 1)
		}
		cancel()
		if err := <-err; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		proxy.Forward(true, true)
		must.Succeed(t, next.Acquire(background))
		must.Succeed(t, next.Release())
	}
}
