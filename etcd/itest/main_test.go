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
	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestMain(m *testing.M) {
	cluster.RunMember()
	runHelper()
	os.Exit(m.Run())
}

// ttl is that of most sessions here. It is short, so that the tests of lost leases do not take long.
const ttl = 3 * time.Second

// embedded starts a cluster of one member in this process, and returns its address. If the environment
// names the program of an etcd, it starts that instead.
func embedded(t testing.TB) string {
	t.Helper()
	if program := os.Getenv("FASTENERS_TEST_ETCD"); program != "" {
		return external(t, program)
	}
	e, err := cluster.Embed(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e.Addr()
}

func external(t testing.TB, program string) string {
	t.Helper()
	var urls, addrs [2]string
	var listeners []net.Listener
	for i := range addrs {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		addrs[i] = l.Addr().String()
		urls[i] = "http://" + addrs[i]
		listeners = append(listeners, l)
	}
	for _, l := range listeners { // when both are chosen
		must(t, l.Close())
	}
	cmd := exec.Command(program, "--data-dir", t.TempDir(), "--log-level", "error", "--initial-cluster", "default="+urls[1],
		"--listen-client-urls", urls[0], "--advertise-client-urls", urls[0],
		"--listen-peer-urls", urls[1], "--initial-advertise-peer-urls", urls[1])
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	must(t, cluster.Ready(t.Context(), newClient(t, addrs[0])))
	return addrs[0]
}

// processes starts a cluster of n members that can be killed.
func processes(t testing.TB, n int, noSync bool) []*cluster.Process {
	t.Helper()
	all, err := cluster.Start(t.TempDir(), n, noSync)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		t.Cleanup(p.Kill)
	}
	if err := cluster.Ready(t.Context(), newClient(t, addrs(all)...)); err != nil {
		t.Fatal(err)
	}
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
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// newProxies returns a proxy for each address.
func newProxies(t testing.TB, addrs ...string) []*cluster.Proxy {
	t.Helper()
	var ps []*cluster.Proxy
	for _, a := range addrs {
		p, err := cluster.NewProxy(a)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		ps = append(ps, p)
	}
	return ps
}

// newSession returns a session with a short TTL, unless an option says otherwise.
func newSession(t testing.TB, c *clientv3.Client, opts ...etcd.Option) *etcd.Session {
	s := etcd.NewSession(c, append([]etcd.Option{etcd.WithTTL(ttl)}, opts...)...)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = s.Close(ctx) // some tests leave no way to etcd
	})
	return s
}

// keysOf returns the keys in the queue of a lock.
func keysOf(t testing.TB, c *clientv3.Client, name string) []string {
	t.Helper()
	resp, err := c.Get(context.Background(), name+"/q/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
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
	resp, err := c.Get(context.Background(), name+"/q/", clientv3.WithPrefix(), byAge)
	must(t, err)
	for i, kv := range resp.Kvs {
		write := strings.HasPrefix(string(kv.Key), name+"/q/w/")
		if i > 0 && write {
			return
		}
		_, _ = c.Revoke(context.Background(), clientv3.LeaseID(kv.Lease)) // several can have one
		if write {
			return
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// blocks is called with what must not happen while something else goes on.
func blocks[T any](t testing.TB, what string, c <-chan T) {
	t.Helper()
	select {
	case <-c:
		t.Fatal(what)
	case <-time.After(50 * time.Millisecond):
	}
}

// inBackground calls f in a goroutine, and returns a channel with its error.
func inBackground(f func() error) <-chan error {
	c := make(chan error, 1)
	go func() { c <- f() }()
	return c
}
