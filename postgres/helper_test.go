package postgres_test

import (
	"context"
	"errors"
	"flag"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners/postgres"
	"github.com/go-fasteners/fasteners/postgres/internal/pgtest"
	"github.com/jackc/pgx/v5"
)

var background = context.Background()

// common is the server of all tests that do not disturb it. The first one starts it.
var common struct {
	once   sync.Once
	server *pgtest.Server
	err    error
}

func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) != "" {
		helperMain()
	}
	flag.Parse()
	code := m.Run()
	if common.server != nil {
		common.server.Close()
	}
	os.Exit(code)
}

func commonServer(tb testing.TB) *pgtest.Server {
	tb.Helper()
	common.once.Do(func() {
		if common.server, common.err = pgtest.New(); common.err == nil {
			awaitGuard(tb, common.server)
		}
	})
	if common.err != nil {
		pgtest.Skip(tb, common.err)
	}
	return common.server
}

// testTTL is the TTL of most tests. It is long enough that a loaded machine does not lose locks.
const testTTL = 5 * time.Second

// awaitGuard waits until locks are granted by a server that was just started.
func awaitGuard(tb testing.TB, s *pgtest.Server) {
	tb.Helper()
	db := postgres.New(s.Config(""), postgres.WithTTL(testTTL))
	defer db.Close(background)
	must(tb, postgres.NewLock(db, "guard").Acquire(background))
}

// newDB returns a handle that is closed at the end of the test.
func newDB(tb testing.TB, s *pgtest.Server, opts ...postgres.Option) *postgres.DB {
	tb.Helper()
	return newDBAt(tb, s, "", opts...)
}

func newDBAt(tb testing.TB, s *pgtest.Server, addr string, opts ...postgres.Option) *postgres.DB {
	tb.Helper()
	db := postgres.New(s.Config(addr), append([]postgres.Option{postgres.WithTTL(testTTL)}, opts...)...)
	tb.Cleanup(func() { must(tb, db.Close(background)) })
	return db
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func wantErr(tb testing.TB, err, want error) {
	tb.Helper()
	if !errors.Is(err, want) {
		tb.Fatalf("%v, want %v", err, want)
	}
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
	must(tb, err)
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[backend])
	must(tb, err)
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

// mustBlock fails if the channel receives within a moment.
func mustBlock[T any](tb testing.TB, c <-chan T) {
	tb.Helper()
	select {
	case <-c:
		tb.Fatal("did not block")
	case <-time.After(50 * time.Millisecond):
	}
}

func goErr(fn func() error) <-chan error {
	c := make(chan error, 1)
	go func() { c <- fn() }()
	return c
}
