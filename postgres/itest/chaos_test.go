package itest

import (
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/postgres"
	"github.com/go-fasteners/fasteners/postgres/internal/pgtest"
	"github.com/jackc/pgx/v5"
)

var duration = flag.Duration("chaos", 15*time.Second, "duration of TestChaos")

const (
	ttl        = 1500 * time.Millisecond
	clients    = 3 // each with a proxy and a DB of its own
	goroutines = 3 // of each client
)

var background = context.Background()

// A chaos is one run. The first options break the lock on purpose.
type chaos struct {
	ignoreLoss   bool // holders go on after they were told, and take each release for a success
	readersShirk bool // readers acquire nothing

	t          *testing.T
	server     *pgtest.Server
	proxies    []*pgtest.Proxy
	history    *history
	stop       atomic.Bool
	done       context.Context
	holds      atomic.Int64
	losses     atomic.Int64
	increments atomic.Int64 // transactions that have been committed
	unknown    atomic.Int64 // transactions whose commit has failed, whether it was done or not
	holder     atomic.Int64 // the client that was the last to acquire the lock
	faults     map[string]int
}

func (c *chaos) run(d time.Duration) {
	t := c.t
	c.server, c.history, c.faults = pgtest.Start(t), newHistory(), map[string]int{}
	if _, err := c.server.Connect(t).Exec(background, `CREATE TABLE counter (n bigint); INSERT INTO counter VALUES (0)`); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(background)
	c.done = ctx
	var workers sync.WaitGroup
	for i := range clients {
		p := pgtest.NewProxy(t, c.server.Addr)
		c.proxies = append(c.proxies, p)
		db := postgres.New(c.server.Config(p.Addr), postgres.WithTTL(ttl))
		defer db.Close(background)
		lock := postgres.NewReaderWriterLock(db, "chaos")
		for j := range goroutines {
			workers.Go(func() { c.work(i*goroutines+j, lock) })
		}
	}
	for end := time.Now().Add(d); time.Now().Before(end); {
		c.breakSomething()
	}
	for _, p := range c.proxies {
		p.Drop(false, false)
	}
	c.stop.Store(true)
	cancel()
	workers.Wait()
	t.Logf("%d holds, %d lost, %d increments, %d unknown, faults %v", c.holds.Load(), c.losses.Load(), c.increments.Load(), c.unknown.Load(), c.faults)
}

// work acquires and releases the lock again and again.
func (c *chaos) work(client int, lock *postgres.ReaderWriterLock) {
	random := rand.New(rand.NewPCG(uint64(client), uint64(time.Now().UnixNano())))
	for !c.stop.Load() {
		shared := random.IntN(3) > 0
		hold := lock.HoldWrite
		if shared {
			hold = lock.HoldRead
			if c.readersShirk {
				hold = func(ctx context.Context) (context.Context, func() error, error) {
					return ctx, func() error { return nil }, nil
				}
			}
		}
		ctx, cancel := context.WithTimeout(c.done, time.Duration(random.IntN(10))*ttl/2+ttl/4)
		call := c.history.now()
		held, release, err := hold(ctx)
		granted := c.history.now()
		if err != nil {
			cancel()
			if ctx.Err() == nil {
				c.t.Error(err)
				return
			}
			continue
		}
		c.holds.Add(1)
		c.holder.Store(int64(client))
		c.history.add(client, input{acquires, shared}, call, granted)
		c.believe(client, shared, random, held, release, granted)
		cancel()
	}
}

// believe does something while it holds the lock, and releases it.
func (c *chaos) believe(client int, shared bool, random *rand.Rand, held context.Context, release func() error, granted int64) {
	to := granted
	long := time.Duration(random.Int64N(int64(2 * time.Millisecond)))
	if random.IntN(50) == 0 || c.ignoreLoss && random.IntN(4) == 0 {
		if long = time.Duration(random.Int64N(int64(2 * ttl))); c.ignoreLoss {
			long = 3 * ttl
		}
	}
	if !shared && random.IntN(2) == 0 {
		c.increment(held)
	}
	for end := time.Now().Add(long); ; {
		now := c.history.now()
		if held.Err() != nil && !c.ignoreLoss {
			break
		}
		to = now // the context was not done at that time or later
		if !time.Now().Before(end) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	c.history.believe(belief{shared, granted, to, client})
	call := c.history.now()
	err := release()
	switch end := c.history.now(); {
	case err == nil || c.ignoreLoss:
		c.history.add(client, input{releases, shared}, call, end)
	case errors.Is(err, fasteners.ErrLost):
		c.losses.Add(1)
		c.history.add(client, input{loses, shared}, granted, end)
	default:
		c.t.Error(err)
	}
}

// increment adds one to the counter in a way that loses updates unless there is a lock.
func (c *chaos) increment(held context.Context) {
	committing := false
	err := postgres.InTx(held, func(tx pgx.Tx) error {
		var n int64
		if err := tx.QueryRow(held, `SELECT n FROM counter`).Scan(&n); err != nil {
			return err
		}
		_, err := tx.Exec(held, `UPDATE counter SET n = $1`, n+1)
		committing = err == nil
		return err
	})
	switch {
	case err == nil:
		c.increments.Add(1)
	case committing:
		c.unknown.Add(1)
	}
}

// breakSomething makes one fault, and heals it after a while. The server is never the first to lose a
// connection, unless it starts anew: it would release the lock before the holder can know.
func (c *chaos) breakSomething() {
	p := c.proxies[rand.IntN(len(c.proxies))]
	count := func(what string) { c.faults[what]++ }
	kind := rand.IntN(12)
	if c.ignoreLoss {
		p, kind = c.proxies[c.holder.Load()/goroutines], 0
	}
	switch kind {
	case 0, 1:
		count("black hole")
		p.Drop(true, true)
	case 2, 3:
		count("nothing to the server")
		p.Drop(true, false)
	case 4, 5:
		count("nothing from the server")
		p.Drop(false, true)
	case 6, 7:
		count("slow")
		p.Delay(ttl / 8)
	case 8, 9:
		count("cut")
		p.Cut()
	case 10:
		count("restart while cut off")
		p.Drop(true, true)
		c.pause()
		if err := c.server.Restart(); err != nil {
			c.t.Error(err)
		}
	case 11:
		count("crash while cut off")
		p.Drop(true, true)
		c.pause()
		c.crash()
	}
	long := time.Duration(rand.Int64N(int64(2 * ttl)))
	if c.ignoreLoss {
		long = 2 * ttl
	}
	time.Sleep(long)
	p.Drop(false, false)
	p.Delay(0)
	c.pause()
}

func (c *chaos) pause() { time.Sleep(time.Duration(rand.Int64N(int64(ttl / 2)))) }

// crash kills one process of the server, which makes it start anew.
func (c *chaos) crash() {
	conn, err := pgx.ConnectConfig(background, c.server.Config(""))
	if err != nil {
		return // it is just starting
	}
	_ = syscall.Kill(int(conn.PgConn().PID()), syscall.SIGKILL)
	_ = conn.Close(background)
}

// TestChaos checks with faults of all kinds that no two holders that exclude each other believe in their
// hold at the same time, that the history is linearizable, and that transactions under the lock lose no
// update.
//
// It does so in rounds, each with a new server: long histories take too much time to check.
func TestChaos(t *testing.T) {
	for end := time.Now().Add(*duration); time.Now().Before(end) && !t.Failed(); {
		c := &chaos{t: t}
		c.run(min(maxRound, max(time.Until(end), time.Second)))
		c.check()
	}
}

const maxRound = 20 * time.Second

func (c *chaos) check() {
	t := c.t
	if o := c.history.overlaps(); len(o) > 0 {
		t.Errorf("%d overlaps: %v", len(o), o[0])
	}
	if !c.history.linearizable(t) {
		t.Error("the history is not linearizable")
	}
	conn := c.connect()
	var n int64
	if err := conn.QueryRow(background, `SELECT n FROM counter`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	if low := c.increments.Load(); n < low || n > low+c.unknown.Load() {
		t.Errorf("counter is %d, but %d transactions were committed, and %d may have been", n, low, c.unknown.Load())
	}
	// Nothing is left but locks of sessions that were cut off, until the server ends them.
	for left := true; left; time.Sleep(10 * time.Millisecond) {
		err := conn.QueryRow(background, `SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory')`).Scan(&left)
		if err != nil {
			t.Fatal(err)
		}
	}
	_ = conn.Close(background)
	c.server.Close()
}

func (c *chaos) connect() *pgx.Conn {
	for {
		conn, err := pgx.ConnectConfig(background, c.server.Config(""))
		if err == nil {
			return conn
		}
		time.Sleep(10 * time.Millisecond) // it may be starting after a crash
	}
}

// TestControl checks that both checks find what they are there for, sooner or later.
func TestControl(t *testing.T) {
	for _, control := range []struct {
		name                     string
		ignoreLoss, readersShirk bool
	}{
		{"holders ignore the loss", true, false},
		{"readers acquire nothing", false, true},
	} {
		t.Run(control.name, func(t *testing.T) {
			t.Parallel()
			for {
				c := &chaos{t: t, ignoreLoss: control.ignoreLoss, readersShirk: control.readersShirk}
				c.run(*duration / 3)
				overlaps := c.history.overlaps()
				t.Logf("%d overlaps", len(overlaps))
				if !c.history.linearizable(t) && len(overlaps) > 0 {
					break
				}
			}
		})
	}
}
