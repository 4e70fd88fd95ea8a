package postgres_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners/postgres"
	"github.com/go-fasteners/fasteners/postgres/internal/pgtest"
	"github.com/jackc/pgx/v5"
)

// startPooler starts PgBouncer before the server, and returns its address.
func startPooler(t *testing.T, s *pgtest.Server, mode string) string {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		program = "/usr/sbin/pgbouncer"
	}
	if _, err := os.Stat(program); err != nil {
		pgtest.Skip(t, errors.New("PgBouncer is not installed (Debian: pgbouncer)"))
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	addr := l.Addr().String()
	must(t, l.Close())
	host, port, err := net.SplitHostPort(s.Addr)
	must(t, err)
	_, own, err := net.SplitHostPort(addr)
	must(t, err)
	f, err := os.CreateTemp("", "pgbouncer")
	must(t, err)
	t.Cleanup(func() { os.Remove(f.Name()) })
	must(t, pgtest.Chown(f.Name()))
	fmt.Fprintf(f, `[databases]
postgres = host=%s port=%s dbname=postgres user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %s
unix_socket_dir =
auth_type = any
pool_mode = %s
ignore_startup_parameters = extra_float_digits
`, host, port, own, mode)
	must(t, f.Close())
	cmd := pgtest.Command(program, "-q", f.Name())
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for {
		conn, err := pgx.ConnectConfig(background, s.Config(addr))
		if err == nil {
			must(t, conn.Close(background))
			return addr
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestPooler(t *testing.T) {
	s := commonServer(t)
	for _, mode := range []string{"session", "transaction"} {
		t.Run(mode, func(t *testing.T) {
			addr := startPooler(t, s, mode)
			lock := postgres.NewLock(newDBAt(t, s, addr), t.Name())
			wantErr(t, lock.Acquire(background), postgres.ErrPooler)
			_, err := lock.TryAcquire(background)
			wantErr(t, err, postgres.ErrPooler)
			if mode != "session" {
				return
			}
			admin := s.Connect(t)
			a := postgres.NewLock(newDBAt(t, s, addr, postgres.WithSessionPooler()), t.Name())
			b := postgres.NewLock(newDBAt(t, s, addr, postgres.WithSessionPooler()), t.Name())
			must(t, a.Acquire(background))
			acquired := goErr(func() error { return b.Acquire(background) })
			awaitLocks(t, admin, t.Name(), 1, 1)
			must(t, a.Release())
			must(t, <-acquired)
			must(t, b.Release())
			awaitLocks(t, admin, t.Name(), 0, 0)
		})
	}
}
