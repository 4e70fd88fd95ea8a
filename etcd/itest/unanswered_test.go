package itest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/etcd"
	"github.com/go-fasteners/fasteners/etcd/itest/cluster"
	"github.com/go-fasteners/fasteners/internal/enginetest/must"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

// An interceptor makes some transactions of a client go without an answer.
type interceptor struct {
	mu    sync.Mutex
	rules []*rule
}

// A rule is for the next transaction that puts or deletes a key of a queue. The transaction is
// performed before the client gives up, or late, when arrive is closed.
type rule struct {
	put    bool            // or it deletes
	sent   chan struct{}   // closed when the client has sent it
	arrive chan struct{}   // to be closed for it to arrive
	done   chan struct{}   // closed when it is performed
	resp   *pb.TxnResponse // then
}

func (i *interceptor) next(put, late bool) *rule {
	r := &rule{put: put, sent: make(chan struct{}), arrive: make(chan struct{}), done: make(chan struct{})}
	if !late {
		close(r.arrive)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.rules = append(i.rules, r)
	return r
}

// take returns the rule for a request, or nil.
func (i *interceptor) take(req any) *rule {
	txn, ok := req.(*pb.TxnRequest)
	if !ok {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	at := slices.IndexFunc(i.rules, func(r *rule) bool {
		return slices.ContainsFunc(txn.Success, func(op *pb.RequestOp) bool {
			if r.put {
				return strings.Contains(string(op.GetRequestPut().GetKey()), "/q/")
			}
			return strings.Contains(string(op.GetRequestDeleteRange().GetKey()), "/q/")
		})
	})
	if at < 0 {
		return nil
	}
	r := i.rules[at]
	i.rules = slices.Delete(i.rules, at, at+1)
	return r
}

func (i *interceptor) intercept(ctx context.Context, method string, req, resp any, conn *grpc.ClientConn,
	invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	r := i.take(req)
	if r == nil {
		return invoke(ctx, method, req, resp, conn, opts...)
	}
	close(r.sent)
	go func() {
		defer close(r.done)
		<-r.arrive
		r.resp = new(pb.TxnResponse)
		_ = invoke(context.WithoutCancel(ctx), method, req, r.resp, conn) // the options are the caller's
	}()
	<-ctx.Done()
	return ctx.Err()
}

// newIntercepted returns a session of a client that is intercepted.
func newIntercepted(t *testing.T, addr string) (*etcd.Session, *interceptor) {
	t.Helper()
	i := new(interceptor)
	c, err := cluster.Client([]string{addr}, grpc.WithChainUnaryInterceptor(i.intercept))
	must.Succeed(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return newSession(t, c), i
}

// TestUnansweredAcquire cancels an acquire while there is no answer to its request, which arrives
// before or after the key is cleaned up.
func TestUnansweredAcquire(t *testing.T) {
	t.Parallel()
	addr := embedded(t)
	admin := newClient(t, addr)
	for _, late := range []bool{false, true} {
		for name, acquire := range map[string]func(*etcd.Lock, context.Context) error{
			"acquire": (*etcd.Lock).Acquire,
			"try":     func(l *etcd.Lock, ctx context.Context) error { _, err := l.TryAcquire(ctx); return err },
		} {
			s, i := newIntercepted(t, addr)
			l := etcd.NewLock(s, "canceled")
			must.Succeed(t, l.Acquire(background)) // so that there is a lease
			must.Succeed(t, l.Release())
			r := i.next(true, late)
			ctx, cancel := context.WithCancel(background)
			err := must.Go(func() error { return acquire(l, ctx) })
			<-r.sent
			if !late {
				<-r.done
				if keys := keysOf(t, admin, "canceled"); len(keys) != 1 {
					t.Errorf("%s, late %v: %q", name, late, keys)
				}
			}
			cancel()
			if err := <-err; !errors.Is(err, context.Canceled) {
				t.Error(name, late, err)
			}
			if late {
				// Another acquire of the session has the same barrier, which it must notice to have
				// changed.
				awaitBarrier(t, admin, "canceled")
				must.Succeed(t, l.Acquire(background))
				must.Succeed(t, l.Release())
				close(r.arrive)
				<-r.done
				if r.resp.Succeeded {
					t.Errorf("%s: a request that arrived late was performed", name)
				}
			}
			awaitKeys(t, admin, "canceled", 0)
			must.Succeed(t, s.Close(background))
		}
	}
}

// awaitBarrier waits until a lock has a barrier.
func awaitBarrier(t *testing.T, c *clientv3.Client, name string) {
	t.Helper()
	for {
		resp, err := c.Get(background, name+"/barrier/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		must.Succeed(t, err)
		if resp.Count > 0 {
			return
		}
	}
}

// TestUnansweredTry acquires a lock with the second request. The first arrives before that, or
// after the lock is released.
func TestUnansweredTry(t *testing.T) {
	t.Parallel()
	addr := embedded(t)
	admin := newClient(t, addr)
	for _, late := range []bool{false, true} {
		s, i := newIntercepted(t, addr)
		l := etcd.NewLock(s, "second")
		r := i.next(true, late)
		must.Succeed(t, l.Acquire(background))
		if keys := keysOf(t, admin, "second"); len(keys) != 1 {
			t.Errorf("late %v: %q", late, keys)
		}
		must.Succeed(t, l.Release())
		if late {
			close(r.arrive)
		}
		<-r.done
		if r.resp.Succeeded == late {
			t.Error(late, r.resp)
		}
		if keys := keysOf(t, admin, "second"); len(keys) > 0 {
			t.Errorf("late %v: %q", late, keys)
		}
	}
}

// TestUnansweredRelease releases a lock with the second request. The first was performed, too, or
// arrives when the lock is held again, or the lease was revoked in between.
func TestUnansweredRelease(t *testing.T) {
	t.Parallel()
	addr := embedded(t)
	admin := newClient(t, addr)
	s, i := newIntercepted(t, addr)
	l := etcd.NewLock(s, "release")
	must.Succeed(t, l.Acquire(background))
	r := i.next(false, false)
	must.Succeed(t, l.Release())
	<-r.done
	if !r.resp.Succeeded {
		t.Error("the first request was not performed")
	}

	must.Succeed(t, l.Acquire(background))
	r = i.next(false, true)
	must.Succeed(t, l.Release())
	must.Succeed(t, l.Acquire(background))
	close(r.arrive)
	<-r.done
	if keys := keysOf(t, admin, "release"); len(keys) != 1 {
		t.Errorf("a release that arrived late has released the next hold: %q", keys)
	}

	r = i.next(false, true)
	err := must.Go(l.Release)
	<-r.sent
	revokeHolders(t, admin, "release")
	if err := <-err; !errors.Is(err, fasteners.ErrLost) {
		t.Error(err)
	}
	close(r.arrive)
	<-r.done
}
