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
	"github.com/go-fasteners/fasteners/internal/enginetest/faultproxy"
	"github.com/go-fasteners/fasteners/internal/enginetest/history"
	"github.com/go-fasteners/fasteners/internal/enginetest/must"
	"github.com/go-fasteners/fasteners/postgres"
	"github.com/go-fasteners/fasteners/postgres/itest/server"
	"github.com/jackc/pgx/v5"
)

var chaosTime = flag.Duration("chaos", 15*time.Second, "how long TestChaos goes on")

const (
	chaosTTL     = 1500 * time.Millisecond
	chaosClients = 3 // each with a proxy and a DB of its own
	perClient    = 3 // goroutines that acquire the lock
)

// A chaos is one run. The first options break the lock on purpose.
type chaos struct {
	ignoreLoss   bool // holders go on after they were told, and take each release for a success
	readersShirk bool // readers acquire nothing

	t          *testing.T
	server     *server.Server
	proxies    []*faultproxy.Proxy
	history    *history.History
	stop       atomic.Bool
	done       context.Context
	holds      atomic.Int64
	losses     atomic.Int64
	increments atomic.Int64 // transactions that have been committed
	unknown    atomic.Int64 // transactions whose commit has failed, whether it was done or not
	holder     atomic.Int64 // the worker that was the last to acquire the lock
	faults     map[string]int
}

func (c *chaos) run(d time.Duration) {
	t := c.t
	c.server, c.history, c.faults = server.New(t), history.New(), map[string]int{}
	_, err := c.server.Connect(t).Exec(background, `CREATE TABLE counter (n bigint); INSERT INTO counter VALUES (0)`)
	must.Succeed(t, err)
	ctx, cancel := context.WithCancel(background)
	c.done = ctx
	var workers sync.WaitGroup
	for i := range chaosClients {
		p := faultproxy.New(t, c.server.Addr())
		c.proxies = append(c.proxies, p)
		db := postgres.New(c.server.Config(p.Addr()), postgres.WithTTL(chaosTTL))
		defer db.Close(background)
		lock := postgres.NewReaderWriterLock(db, "chaos")
		for j := range perClient {
			workers.Go(func() { c.work(i*perClient+j, lock) })
		}
	}
	for end := time.Now().Add(d); time.Now().Before(end); {
		c.breakSomething()
	}
	for _, p := range c.proxies {
		p.Forward(true, true)
	}
	c.stop.Store(true)
	cancel()
	workers.Wait()
	t.Logf("%d holds, %d lost, %d increments, %d unknown, faults %v",
		c.holds.Load(), c.losses.Load(), c.increments.Load(), c.unknown.Load(), c.faults)
}

// work acquires and releases the lock again and again.
func (c *chaos) work(worker int, lock *postgres.ReaderWriterLock) {
	random := rand.New(rand.NewPCG(uint64(worker), uint64(time.Now().UnixNano())))
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
		ctx, cancel := context.WithTimeout(c.done, time.Duration(random.IntN(10))*chaosTTL/2+chaosTTL/4)
		h := c.history.Begin(worker, !shared)
		held, release, err := hold(ctx)
		if err != nil {
			cancel()
			if ctx.Err() == nil {
				c.t.Error(err)
				return
			}
			continue
		}
		token, _ := fasteners.Token(held)
		h.Acquired(token)
		c.holds.Add(1)
		c.holder.Store(int64(worker))
		c.hold(h, shared, random, held)
		c.release(h, release)
		cancel()
	}
}

// hold does something while a worker holds the lock.
func (c *chaos) hold(h *history.Hold, shared bool, random *rand.Rand, held context.Context) {
	looks := held
	if c.ignoreLoss {
		looks = context.WithoutCancel(held)
	}
	h.Look(background) // who has just acquired the lock takes itself for the holder
	long := time.Duration(random.Int64N(int64(2 * time.Millisecond)))
	if random.IntN(50) == 0 || c.ignoreLoss && random.IntN(4) == 0 {
		if long = time.Duration(random.Int64N(int64(2 * chaosTTL))); c.ignoreLoss {
			long = 3 * chaosTTL
		}
	}
	if !shared && random.IntN(2) == 0 {
		c.increment(held)
	}
	for end := time.Now().Add(long); h.Look(looks) && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}

func (c *chaos) release(h *history.Hold, release func() error) {
	h.Releasing()
	switch err := release(); {
	case err == nil || c.ignoreLoss:
		h.Released()
	case errors.Is(err, fasteners.ErrLost):
		c.losses.Add(1)
		h.Lost()
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

// breakSomething makes one fault, and heals it after a while. The server is never the first to
// lose a connection, unless it starts anew: it would release the lock before the holder can know.
func (c *chaos) breakSomething() {
	p := c.proxies[rand.IntN(len(c.proxies))]
	count := func(what string) { c.faults[what]++ }
	kind := rand.IntN(12)
	if c.ignoreLoss {
		p, kind = c.proxies[c.holder.Load()/perClient], 0
	}
	switch kind {
	case 0, 1:
		count("black hole")
		p.Forward(false, false)
	case 2, 3:
		count("nothing to the server")
		p.Forward(false, true)
	case 4, 5:
		count("nothing from the server")
		p.Forward(true, false)
	case 6, 7:
		count("slow")
		p.Delay(chaosTTL / 8)
	case 8, 9:
		count("cut")
		p.CutClients()
	case 10:
		count("restart while cut off")
		p.Forward(false, false)
		c.pause()
		if err := c.server.Restart(); err != nil {
			c.t.Error(err)
		}
	case 11:
		count("crash while cut off")
		p.Forward(false, false)
		c.pause()
		c.crash()
	}
	long := time.Duration(rand.Int64N(int64(2 * chaosTTL)))
	if c.ignoreLoss {
		long = 2 * chaosTTL
	}
	time.Sleep(long)
	p.Forward(true, true)
	p.Delay(0)
	c.pause()
}

func (c *chaos) pause() { time.Sleep(time.Duration(rand.Int64N(int64(chaosTTL / 2)))) }

// crash kills one process of the server, which makes it start anew.
func (c *chaos) crash() {
	conn, err := pgx.ConnectConfig(background, c.server.Config(""))
	if err != nil {
		return // it is just starting
	}
	_ = syscall.Kill(int(conn.PgConn().PID()), syscall.SIGKILL)
	_ = conn.Close(background)
}

// TestChaos checks with faults of all kinds that no two holders that exclude each other believe
// in their hold at the same time, that the history is linearizable, and that transactions under
// the lock lose no update.
//
// It does so in rounds, each with a new server: long histories take too much time to check.
func TestChaos(t *testing.T) {
	for end := time.Now().Add(*chaosTime); time.Now().Before(end) && !t.Failed(); {
		c := &chaos{t: t}
		c.run(min(maxRound, max(time.Until(end), time.Second)))
		c.check()
	}
}

const maxRound = 20 * time.Second

func (c *chaos) check() {
	t := c.t
	c.history.Check(t)
	conn := c.connect()
	var n int64
	must.Succeed(t, conn.QueryRow(background, `SELECT n FROM counter`).Scan(&n))
	if low := c.increments.Load(); n < low || n > low+c.unknown.Load() {
		t.Errorf("counter is %d, but %d transactions were committed, and %d may have been", n, low, c.unknown.Load())
	}
	// Nothing is left but locks of sessions that were cut off, until the server ends them.
	const locks = `SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory')`
	for left := true; left; time.Sleep(10 * time.Millisecond) {
		must.Succeed(t, conn.QueryRow(background, locks).Scan(&left))
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
				c.run(*chaosTime / 3)
				overlaps := c.history.Overlaps()
				t.Logf("%d overlaps", len(overlaps))
				if !c.history.Linearizable(t) && len(overlaps) > 0 {
					break
				}
			}
		})
	}
}
