package itest

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/go-fasteners/fasteners/etcd"
	"github.com/go-fasteners/fasteners/internal/enginetest/must"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

var figures = flag.Bool("figures", false, "measure, beside client/v3/concurrency, and print tables")

// A mutex is a lock of either package, of a client of its own.
type mutex struct {
	acquire, release func() error
	lost             func() <-chan struct{} // while it is held
}

// A maker makes locks of one package.
type maker struct {
	name string
	make func(t *testing.T, c *clientv3.Client, name string) mutex
}

const figuresTTL = 3 // seconds

var makers = []maker{
	{"this package", func(t *testing.T, c *clientv3.Client, name string) mutex {
		l := etcd.NewLock(newSession(t, c, etcd.WithTTL(figuresTTL*time.Second)), name)
		var held context.Context
		var release func() error
		return mutex{func() (err error) {
			held, release, err = l.Hold(background)
			return err
		}, func() error { return release() }, func() <-chan struct{} { return held.Done() }}
	}},
	{"client/v3/concurrency", func(t *testing.T, c *clientv3.Client, name string) mutex {
		s, err := concurrency.NewSession(c, concurrency.WithTTL(figuresTTL))
		must.Succeed(t, err)
		t.Cleanup(func() {
			s.Orphan() // some have no way to etcd
			go s.Close()
		})
		m := concurrency.NewMutex(s, name)
		return mutex{func() error { return m.Lock(background) }, func() error { return m.Unlock(background) }, s.Done}
	}},
}

var names atomic.Int64

func newName() string { return fmt.Sprint("figures/", names.Add(1)) }

// TestFigures measures what the README says. Both packages take turns, so that other load of the
// machine meets both.
func TestFigures(t *testing.T) {
	if !*figures {
		t.Skip("-figures is not set")
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.Debug)
	defer w.Flush()
	fmt.Fprintln(w, "\tmembers\t"+makers[0].name+"\t"+makers[1].name)
	row := func(what string, members int, measure func(maker) string) {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", what, members, measure(makers[0]), measure(makers[1]))
	}
	for _, n := range []int{1, 3} {
		at := addrs(newMembers(t, n, false))
		alone := measureAlone(t, at)
		row("acquire and release alone", n, func(m maker) string { return fmt.Sprint(alone[m.name]) })
		row("hand-off to a waiter that came 20 ms before", n, func(m maker) string { return measureHandOff(t, m, at) })
		row("eight contenders", n, func(m maker) string { return measureContenders(t, m, at) })
		if n == 1 {
			cuts := measureCuts(t, at[0])
			row("told too late in 32 cuts", n, func(m maker) string { return cuts[m.name] })
			row("1,000 waiters", n, func(m maker) string { return measureWaiters(t, m, at) })
		} else {
			row("hand-off over a dead link, TTL 3 s", n, func(m maker) string { return measureDeadLink(t, m, at) })
		}
		w.Flush()
	}
}

func quantile(ds []time.Duration, q float64) time.Duration {
	slices.Sort(ds)
	return ds[min(int(q*float64(len(ds))), len(ds)-1)].Round(10 * time.Microsecond)
}

func describe(ds []time.Duration) string {
	return fmt.Sprintf("median %v, 9 of 10 %v, longest %v", quantile(ds, .5), quantile(ds, .9), quantile(ds, 1))
}

func measureAlone(t *testing.T, at []string) map[string]string {
	c := newClient(t, at...)
	var locks []mutex
	var times [2][]time.Duration
	for _, m := range makers {
		locks = append(locks, m.make(t, c, newName()))
	}
	for range 1500 {
		for i, l := range locks {
			begun := time.Now()
			must.Succeed(t, l.acquire())
			must.Succeed(t, l.release())
			times[i] = append(times[i], time.Since(begun))
		}
	}
	result := map[string]string{}
	for i, m := range makers {
		var sum time.Duration
		for _, d := range times[i] {
			sum += d
		}
		result[m.name] = fmt.Sprintf("%.0f/s, median %v", float64(len(times[i]))/sum.Seconds(), quantile(times[i], .5))
	}
	return result
}

func measureHandOff(t *testing.T, m maker, at []string) string {
	name := newName()
	a, b := m.make(t, newClient(t, at...), name), m.make(t, newClient(t, at...), name)
	must.Succeed(t, a.acquire())
	var ds []time.Duration
	for range 100 {
		acquired := make(chan time.Time)
		go func() {
			if err := b.acquire(); err != nil {
				t.Error(err)
			}
			acquired <- time.Now()
		}()
		time.Sleep(20 * time.Millisecond)
		begun := time.Now()
		must.Succeed(t, a.release())
		ds = append(ds, (<-acquired).Sub(begun))
		a, b = b, a
	}
	must.Succeed(t, a.release())
	return describe(ds)
}

func measureContenders(t *testing.T, m maker, at []string) string {
	const n = 8
	name := newName()
	var turns [n]int
	var all sync.WaitGroup
	begun := time.Now()
	for i := range n {
		l := m.make(t, newClient(t, at...), name)
		all.Go(func() {
			for time.Since(begun) < 3*time.Second {
				if err := cmp.Or(l.acquire(), l.release()); err != nil {
					t.Error(err)
					return
				}
				turns[i]++
			}
		})
	}
	all.Wait()
	took, sum := time.Since(begun), 0
	for _, n := range turns {
		sum += n
	}
	return fmt.Sprintf("%.0f/s, shares %d to %d", float64(sum)/took.Seconds(), slices.Min(turns[:]), slices.Max(turns[:]))
}

// measureCuts cuts 32 holders off, at any time after their lease was kept alive, and compares
// when they are told with when the next one has the lock.
func measureCuts(t *testing.T, at string) map[string]string {
	const n = 32
	var mu sync.Mutex
	late, by := map[string]int{}, map[string]time.Duration{}
	var all sync.WaitGroup
	near := newClient(t, at)
	for range n {
		proxy := newProxies(t, at)[0]
		far := newClient(t, proxy.Addr())
		var both sync.WaitGroup
		cut := make(chan struct{})
		for _, m := range makers {
			name := newName()
			holder, next := m.make(t, far, name), m.make(t, near, name)
			must.Succeed(t, holder.acquire())
			both.Add(1)
			all.Go(func() {
				lost, told := holder.lost(), make(chan time.Time, 1)
				go func() { <-lost; told <- time.Now() }()
				both.Done()
				<-cut
				if err := next.acquire(); err != nil {
					t.Error(err)
				}
				acquired := time.Now()
				d := (<-told).Sub(acquired)
				mu.Lock()
				defer mu.Unlock()
				if d > 0 {
					late[m.name]++
					by[m.name] = max(by[m.name], d)
				}
			})
		}
		all.Go(func() {
			both.Wait()
			time.Sleep(2*time.Second + rand.N(2*time.Second))
			proxy.Forward(false, false)
			close(cut)
		})
	}
	all.Wait()
	result := map[string]string{}
	for _, m := range makers {
		result[m.name] = fmt.Sprintf("%d of %d, by up to %v", late[m.name], n, by[m.name].Round(time.Millisecond))
	}
	return result
}

// measureWaiters has 1,000 goroutines wait, and measures the memory of this process, in which no
// member is.
func measureWaiters(t *testing.T, m maker, at []string) string {
	const n = 1000
	name := newName()
	c := newClient(t, at...)
	holder := m.make(t, c, name)
	must.Succeed(t, holder.acquire())
	memory := func() uint64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&s)
		return s.HeapAlloc + s.StackInuse
	}
	var all sync.WaitGroup
	before := memory()
	var ours *etcd.Session
	if m.name == makers[0].name {
		ours = newSession(t, c)
	}
	begun := time.Now()
	for range n {
		var l mutex
		if ours != nil {
			lock := etcd.NewLock(ours, name)
			l = mutex{acquire: func() error { return lock.Acquire(background) }, release: lock.Release}
		} else {
			l = m.make(t, c, name) // they need a session each
		}
		all.Go(func() {
			if err := cmp.Or(l.acquire(), l.release()); err != nil {
				t.Error(err)
			}
		})
	}
	for {
		resp, err := c.Get(background, name+"/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		must.Succeed(t, err)
		if resp.Count > n {
			break
		}
	}
	queued := time.Since(begun)
	time.Sleep(2 * time.Second) // until they have begun to watch
	each := (memory() - before) / n
	begun = time.Now()
	must.Succeed(t, holder.release())
	all.Wait()
	return fmt.Sprintf("%.1f kB each, queued in %v, served in %v", float64(each)/1000,
		queued.Round(10*time.Millisecond), time.Since(begun).Round(10*time.Millisecond))
}

// measureDeadLink lets the links of a waiter die, one after the other.
func measureDeadLink(t *testing.T, m maker, at []string) string {
	proxies := newProxies(t, at...)
	far, near := newClient(t, addrs(proxies)...), newClient(t, at...)
	name := newName()
	waiter, holder := m.make(t, far, name), m.make(t, near, name)
	var ds []time.Duration
	for i := range 9 {
		must.Succeed(t, holder.acquire())
		acquired := must.Go(waiter.acquire)
		time.Sleep(500 * time.Millisecond)
		p := proxies[i%len(proxies)]
		p.Forward(false, false)
		begun := time.Now()
		must.Succeed(t, holder.release())
		if err := <-acquired; err != nil {
			return fmt.Sprintf("%v in round %d", err, i+1) // the lease is lost
		}
		ds = append(ds, time.Since(begun))
		if err := waiter.release(); err != nil {
			t.Log(m.name, err)
		}
		p.Forward(true, true)
		time.Sleep(time.Second)
	}
	return describe(ds)
}
