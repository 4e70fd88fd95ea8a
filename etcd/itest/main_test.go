// Package itest tests package etcd with members that fail, and networks that do. It is a module
// of its own, so that what it needs is not among the dependencies of that package.
package itest

import (
	"context"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners/etcd"
	"github.com/go-fasteners/fasteners/etcd/itest/cluster"
	"github.com/go-fasteners/fasteners/internal/enginetest/faultproxy"
	"github.com/go-fasteners/fasteners/internal/enginetest/must"
	"github.com/go-fasteners/fasteners/internal/enginetest/process"
	clientv3 "go.etcd.io/etcd/client/v3"
)

var background = context.Background()

func TestMain(m *testing.M) {
	process.Main(map[string]func([]string) error{cluster.Function: cluster.RunMember, "holder": runHolder})
	os.Exit(m.Run())
}

// ttl is that of most sessions here. It is short, so that the tests of lost leases do not take
// long.
const ttl = 3 * time.Second

// embedded starts a cluster of one member in this process, and returns its address. If the
// environment names the program of an etcd, it starts that instead.
func embedded(t testing.TB) string {
	t.Helper()
	if program := os.Getenv("FASTENERS_TEST_ETCD"); program != "" {
		return external(t, program)
	}
	e, err := cluster.Embed(t.TempDir())
	must.Succeed(t, err)
	t.Cleanup(e.Close)
	return e.Addr()
}

func external(t testing.TB, program string) string {
	t.Helper()
	var urls, addrs [2]string
	var listeners []net.Listener
	for i := range addrs {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must.Succeed(t, err)
		addrs[i] = l.Addr().String()
		urls[i] = "http://" + addrs[i]
		listeners = append(listeners, l)
	}
	for _, l := range listeners { // when both are chosen
		must.Succeed(t, l.Close())
	}
	cmd := exec.Command(program, "--data-dir", t.TempDir(), "--log-level", "error",
		"--initial-cluster", "default="+urls[1],
		"--listen-client-urls", urls[0], "--advertise-client-urls", urls[0],
		"--listen-peer-urls", urls[1], "--initial-advertise-peer-urls", urls[1])
	cmd.Stdout = os.Stderr
	process.New(t, cmd)
	must.Succeed(t, cluster.Ready(t.Context(), newClient(t, addrs[0])))
	return addrs[0]
}

// newMembers starts a cluster of n members that can be killed and stopped.
func newMembers(t testing.TB, n int, noSync bool) []*cluster.Member {
	t.Helper()
	all, err := cluster.Start(t.TempDir(), n, noSync)
	must.Succeed(t, err)
	for _, m := range all {
		t.Cleanup(func() { m.Kill() }) // the process at that time
	}
	must.Succeed(t, cluster.Ready(t.Context(), newClient(t, addrs(all)...)))
	return all
}

func addrs[A interface{ Addr() string }](all []A) []string {
	var as []string
	for _, a := range all {
		as = append(as, a.Addr())
	}
	return as
}

func newClient(t testing.TB, addrs ...string) *clientv3.Client {
	t.Helper()
	c, err := cluster.Client(addrs)
	must.Succeed(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// newProxies returns a proxy for each address.
func newProxies(t testing.TB, addrs ...string) []*faultproxy.Proxy {
	t.Helper()
	var ps []*faultproxy.Proxy
	for _, a := range addrs {
		ps = append(ps, faultproxy.New(t, a))
	}
	return ps
}

// newSession returns a session with a short TTL, unless an option says otherwise.
func newSession(t testing.TB, c *clientv3.Client, opts ...etcd.Option) *etcd.Session {
	s := etcd.NewSession(c, append([]etcd.Option{etcd.WithTTL(ttl)}, opts...)...)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(background, time.Second)
		defer cancel()
		_ = s.Close(ctx) // some tests leave no way to etcd
	})
	return s
}

// keysOf returns the keys in the queue of a lock.
func keysOf(t testing.TB, c *clientv3.Client, name string) []string {
	t.Helper()
	resp, err := c.Get(background, name+"/q/", clientv3.WithPrefix())
	must.Succeed(t, err)
	var keys []string
	for _, kv := range resp.Kvs {
		keys = append(keys, strings.TrimPrefix(string(kv.Key), name))
	}
	return keys
}

// awaitKeys waits until the queue of a lock has n keys.
func awaitKeys(t testing.TB, c *clientv3.Client, name string, n int) {
	t.Helper()
	for len(keysOf(t, c, name)) != n {
		time.Sleep(time.Millisecond)
	}
}

// revokeHolders revokes the leases of all holders of a lock, but not those of its waiters.
func revokeHolders(t testing.TB, c *clientv3.Client, name string) {
	t.Helper()
	byAge := clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend)
	resp, err := c.Get(background, name+"/q/", clientv3.WithPrefix(), byAge)
	must.Succeed(t, err)
	for i, kv := range resp.Kvs {
		write := strings.HasPrefix(string(kv.Key), name+"/q/w/")
		if i > 0 && write {
			return
		}
		_, _ = c.Revoke(background, clientv3.LeaseID(kv.Lease)) // several can have one
		if write {
			return
		}
	}
}
