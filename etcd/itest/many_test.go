package itest

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-fasteners/fasteners/etcd"
	"github.com/go-fasteners/fasteners/etcd/itest/cluster"
	"github.com/go-fasteners/fasteners/internal/enginetest/must"
	"google.golang.org/grpc"
)

// TestManyWaiters has many goroutines of a session wait for a lock. They do not ask etcd all at
// once: it would have no time for anything else, and the session would lose its lease.
func TestManyWaiters(t *testing.T) {
	t.Parallel()
	const n, most = 200, 16
	var now, greatest atomic.Int64
	count := func(ctx context.Context, method string, req, resp any, conn *grpc.ClientConn,
		invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		i := now.Add(1)
		defer now.Add(-1)
		for g := greatest.Load(); i > g && !greatest.CompareAndSwap(g, i); g = greatest.Load() {
		}
		return invoke(ctx, method, req, resp, conn, opts...)
	}
	addr := embedded(t)
	c, err := cluster.Client([]string{addr}, grpc.WithChainUnaryInterceptor(count))
	must.Succeed(t, err)
	t.Cleanup(func() { _ = c.Close() })
	holder := etcd.NewLock(newSession(t, newClient(t, addr)), "many")
	must.Succeed(t, holder.Acquire(background))
	s := newSession(t, c)
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			l := etcd.NewLock(s, "many")
			if err := l.Acquire(background); err != nil {
				t.Error(err)
				return
			}
			if err := l.Release(); err != nil {
				t.Error(err)
			}
		})
	}
	awaitKeys(t, newClient(t, addr), "many", n+1)
	if g := greatest.Load(); g > most || g < 2 {
		t.Errorf("%d requests at a time", g)
	}
	must.Succeed(t, holder.Release())
	all.Wait()
}
