// Package itest tests package postgres with servers that fail, and networks that do. It is a
// module of its own, so that what it needs is not among the dependencies of that package.
package itest

import (
	"context"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/internal/enginetest/must"
	"github.com/go-fasteners/fasteners/internal/enginetest/process"
	"github.com/go-fasteners/fasteners/postgres"
	"github.com/go-fasteners/fasteners/postgres/itest/server"
	"github.com/jackc/pgx/v5"
)

var background = context.Background()

// common is the server of all tests that do not disturb it. The first one starts it.
var common struct {
	once   sync.Once
	server *server.Server
	err    error
}

func TestMain(m *testing.M) {
	process.Main(map[string]func([]string) error{"holder": runHolder})
	code := m.Run()
	if common.server != nil {
		common.server.Close()
	}
	os.Exit(code)
}

func commonServer(tb testing.TB) *server.Server {
	tb.Helper()
	common.once.Do(func() {
		if common.server, common.err = server.Start(); common.err == nil {
			awaitGuard(tb, common.server)
		}
	})
	server.Demand(tb, common.err)
	return common.server
}

// ttl is the TTL of most tests. It is long enough that a loaded machine does not lose locks.
const ttl = 5 * time.Second

// shortTTL is the TTL of tests in which a lock is lost.
const shortTTL = 2 * time.Second

// awaitGuard waits until locks are granted by a server that was just started.
func awaitGuard(tb testing.TB, s *server.Server) {
	tb.Helper()
	db := postgres.New(s.Config(""), postgres.WithTTL(ttl))
	defer db.Close(background)
	must.Succeed(tb, postgres.NewLock(db, "guard").Acquire(background))
}

// newDB returns a handle that is closed at the end of the test.
func newDB(tb testing.TB, s *server.Server, opts ...postgres.Option) *postgres.DB {
	tb.Helper()
	return newDBAt(tb, s, "", opts...)
}

func newDBAt(tb testing.TB, s *server.Server, addr string, opts ...postgres.Option) *postgres.DB {
	tb.Helper()
	db := postgres.New(s.Config(addr), append([]postgres.Option{postgres.WithTTL(ttl)}, opts...)...)
	tb.Cleanup(func() { must.Succeed(tb, db.Close(background)) })
	return db
}

// A backend is a row of pg_locks for a lock.
type backend struct {
	PID     uint32
	Mode    string
	Granted bool
}

// locksOf returns who has the lock and who waits for it, as the server knows.
func locksOf(tb testing.TB, conn *pgx.Conn, name string) []backend {
	tb.Helper()
	key := uint64(postgres.Key(name))
	rows, err := conn.Query(background, `SELECT pid, mode, granted FROM pg_locks
		WHERE locktype = 'advisory' AND classid::bigint = $1 AND objid::bigint = $2 AND objsubid = 1`,
		int64(key>>32), int64(uint32(key)))
	must.Succeed(tb, err)
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[backend])
	must.Succeed(tb, err)
	return all
}

// awaitLocks waits until that many sessions have the lock, and that many wait for it.
func awaitLocks(tb testing.TB, conn *pgx.Conn, name string, holders, waiters int) {
	tb.Helper()
	for {
		h, w := 0, 0
		for _, b := range locksOf(tb, conn, name) {
			if b.Granted {
				h++
			} else {
				w++
			}
		}
		if h == holders && w == waiters {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// terminateHolders ends the sessions that hold a lock, but not those of its waiters.
func terminateHolders(tb testing.TB, conn *pgx.Conn, name string) {
	tb.Helper()
	for _, b := range locksOf(tb, conn, name) {
		if b.Granted {
			_, err := conn.Exec(background, "SELECT pg_terminate_backend($1)", int32(b.PID))
			must.Succeed(tb, err)
		}
	}
}

// mustBeTold checks that a holder has been told of its loss. It is called when somebody else has
// just acquired the lock.
func mustBeTold(tb testing.TB, held context.Context) {
	tb.Helper()
	if held.Err() == nil {
		tb.Error("somebody else has the lock, and the holder has not been told")
	}
	must.Fail(tb, context.Cause(held), fasteners.ErrLost)
}

// awaitBlocked waits until n goroutines that the test has started are blocked in
// [postgres.Lock.Acquire].
func awaitBlocked(tb testing.TB, n int) {
	tb.Helper()
	for blocked := 0; blocked < n; time.Sleep(time.Millisecond) {
		blocked = 0
		for stack := range strings.SplitSeq(stacks(), "\n\n") {
			state, calls, _ := strings.Cut(stack, "\n")
			if (strings.Contains(state, "[select") || strings.Contains(state, "[chan receive")) &&
				strings.Contains(calls, "/postgres.(*Lock).Acquire(") && strings.Contains(calls, "."+tb.Name()+".func") {
				blocked++
			}
		}
	}
}

// stacks returns the stacks of all goroutines.
func stacks() string {
	for buf := make([]byte, 1<<20); ; buf = make([]byte, 2*len(buf)) {
		if n := runtime.Stack(buf, true); n < len(buf) {
			return string(buf[:n])
		}
	}
}
