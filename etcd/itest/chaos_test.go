package itest

import (
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/etcd"
	"github.com/go-fasteners/fasteners/etcd/itest/cluster"
	"github.com/go-fasteners/fasteners/internal/enginetest/faultproxy"
	"github.com/go-fasteners/fasteners/internal/enginetest/history"
	"github.com/go-fasteners/fasteners/internal/enginetest/must"
	clientv3 "go.etcd.io/etcd/client/v3"
)

var chaosTime = flag.Duration("chaos", 10*time.Second, "how long TestChaos goes on")

const (
	chaosName    = "chaos"
	chaosClients = 3
	perClient    = 2 // goroutines that acquire the lock
)

// A chaos is a run of TestChaos.
type chaos struct {
	*history.History
	t       *testing.T
	members []*cluster.Member
	admin   *clientv3.Client
	links   [chaosClients][]*faultproxy.Proxy // of each client to each member
	end     time.Time

	mu    sync.Mutex
	count map[string]int
}

// TestChaos has readers and writers of several clients acquire a lock while members are killed
// and stopped, and connections fail. At no time two of them may take themselves to be holders
// that exclude each other, the history must be linearizable, and a counter of the writers must
// have counted all.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("takes time")
	}
	c := &chaos{
		History: history.New(), t: t, members: newMembers(t, 3, true),
		end: time.Now().Add(*chaosTime), count: map[string]int{},
	}
	c.Tokens = true
	c.admin = newClient(t, addrs(c.members)...)
	var workers sync.WaitGroup
	for i := range c.links {
		c.links[i] = newProxies(t, addrs(c.members)...)
		client := newClient(t, addrs(c.links[i])...)
		s := newSession(t, client)
		for j := range perClient {
			w := &worker{c, client, s, i*perClient + j}
			workers.Go(w.run)
		}
	}
	for time.Now().Before(c.end) {
		c.fail()
	}
	workers.Wait()

	resp, err := c.admin.Get(background, "counter")
	must.Succeed(t, err)
	counter := 0
	if len(resp.Kvs) > 0 {
		counter, err = strconv.Atoi(string(resp.Kvs[0].Value))
		must.Succeed(t, err)
	}
	t.Logf("counter %d; %v", counter, c.count)
	if counted := c.count["counted"]; counter < counted || counter > counted+c.count["perhaps counted"] {
		t.Error("the counter has not counted all, or too much")
	}
	c.Check(t)
	if c.count["released"] == 0 || c.count["counted"] == 0 {
		t.Error("nothing was done")
	}
	awaitKeys(t, c.admin, chaosName, 0)
}

func (c *chaos) add(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count[what]++
}

// fail makes something fail for a while.
func (c *chaos) fail() {
	time.Sleep(500*time.Millisecond + rand.N(1500*time.Millisecond))
	pause := func() { time.Sleep(time.Second + rand.N(3*time.Second)) }
	m := c.members[rand.IntN(len(c.members))]
	if rand.IntN(3) > 0 {
		var err error
		m, err = cluster.Leader(background, c.admin, c.members)
		must.Succeed(c.t, err)
	}
	links := c.links[rand.IntN(len(c.links))]
	link := links[rand.IntN(len(links))]
	switch what := rand.IntN(6); what {
	case 0:
		c.add("killed")
		m.Kill()
		pause()
		must.Succeed(c.t, m.Start())
	case 1:
		c.add("stopped")
		must.Succeed(c.t, m.Stop())
		pause()
		must.Succeed(c.t, m.Continue())
	case 2, 3:
		c.add("cut off")
		for _, l := range links {
			l.Forward(what == 2, false)
		}
		pause()
		for _, l := range links {
			l.Forward(true, true)
		}
	case 4:
		c.add("dead links")
		link.Forward(false, false)
		pause()
		link.Forward(true, true)
	case 5:
		c.add("all connections cut")
		for _, links := range c.links {
			for _, l := range links {
				l.Cut()
			}
		}
	}
}

// A worker acquires and releases the lock.
type worker struct {
	*chaos
	client  *clientv3.Client
	session *etcd.Session
	number  int
}

func (w *worker) run() {
	for time.Now().Before(w.end) {
		write := rand.IntN(3) > 0
		if rand.IntN(8) == 0 {
			w.try(write)
		} else {
			w.hold(write)
		}
	}
}

// hold acquires the lock, looks at its context for a while, counts if it writes, and releases the
// lock.
func (w *worker) hold(write bool) {
	timeout := 15 * time.Second
	if rand.IntN(8) == 0 {
		timeout = rand.N(20 * time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(background, timeout)
	defer cancel()
	l := etcd.NewReaderWriterLock(w.session, chaosName)
	hold := l.HoldRead
	if write {
		hold = l.HoldWrite
		if rand.IntN(2) == 0 {
			hold = etcd.NewLock(w.session, chaosName).Hold
		}
	}
	h := w.Begin(w.number, write)
	held, release, err := hold(ctx)
	if err != nil {
		if !errors.Is(err, context.DeadlineExceeded) {
			w.t.Error(err)
		}
		w.add("canceled")
		return
	}
	token, _ := fasteners.Token(held)
	h.Acquired(token)
	length := rand.N(4 * time.Millisecond)
	if rand.IntN(300) == 0 {
		length = rand.N(2 * ttl)
	}
	for h.Look(held) && h.Age() < length {
		time.Sleep(time.Millisecond)
	}
	if write {
		w.increment(held)
	}
	h.Look(held)
	w.release(h, release)
}

func (w *worker) try(write bool) {
	ctx, cancel := context.WithTimeout(background, time.Second)
	defer cancel()
	l := etcd.NewReaderWriterLock(w.session, chaosName)
	try, release := l.TryAcquireReadLock, l.ReleaseReadLock
	if write {
		try, release = l.TryAcquireWriteLock, l.ReleaseWriteLock
	}
	h := w.Begin(w.number, write)
	ok, err := try(ctx)
	switch {
	case err != nil && !errors.Is(err, context.DeadlineExceeded):
		w.t.Error(err)
	case ok:
		h.Acquired(0) // the token is for those who look
		w.release(h, release)
	}
}

func (w *worker) release(h *history.Hold, release func() error) {
	h.Releasing()
	switch err := release(); {
	case err == nil:
		w.add("released")
		h.Released()
	case errors.Is(err, fasteners.ErrLost):
		w.add("lost")
		h.Lost()
	default:
		w.t.Error(err)
	}
}

// increment increments the counter, also if the lock seems to be lost: then etcd must refuse it.
func (w *worker) increment(held context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(held), 2*time.Second)
	defer cancel()
	resp, err := w.client.Get(ctx, "counter")
	if err != nil {
		return
	}
	n := 0
	if len(resp.Kvs) > 0 {
		n, _ = strconv.Atoi(string(resp.Kvs[0].Value))
	}
	time.Sleep(rand.N(3 * time.Millisecond))
	_, err = etcd.Commit(ctx, clientv3.OpPut("counter", strconv.Itoa(n+1)))
	switch {
	case err == nil:
		w.add("counted")
	case errors.Is(err, fasteners.ErrLost):
		w.add("refused")
	default:
		w.add("perhaps counted")
	}
}
