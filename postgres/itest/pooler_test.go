package itest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners/internal/enginetest/must"
	"github.com/go-fasteners/fasteners/internal/enginetest/process"
	"github.com/go-fasteners/fasteners/postgres"
	"github.com/go-fasteners/fasteners/postgres/itest/server"
	"github.com/jackc/pgx/v5"
)

// startPooler starts PgBouncer before the server, and returns its address.
func startPooler(t *testing.T, s *server.Server, mode string) string {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		program = "/usr/sbin/pgbouncer"
	}
	if _, err := os.Stat(program); err != nil {
		server.Demand(t, fmt.Errorf("PgBouncer: %w (Debian: pgbouncer)", server.ErrNotInstalled))
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must.Succeed(t, err)
	addr := l.Addr().String()
	must.Succeed(t, l.Close())
	host, port, err := net.SplitHostPort(s.Addr())
	must.Succeed(t, err)
	_, own, err := net.SplitHostPort(addr)
	must.Succeed(t, err)
	f, err := os.CreateTemp("", "pgbouncer")
	must.Succeed(t, err)
	t.Cleanup(func() { os.Remove(f.Name()) })
	must.Succeed(t, server.Chown(f.Name()))
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
	must.Succeed(t, f.Close())
	cmd := server.Command(program, "-q", f.Name())
	cmd.Stdout = os.Stderr
	process.New(t, cmd)
	for {
		conn, err := pgx.ConnectConfig(background, s.Config(addr))
		if err == nil {
			must.Succeed(t, conn.Close(background))
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
			must.Fail(t, lock.Acquire(background), postgres.ErrPooler)
			_, err := lock.TryAcquire(background)
			must.Fail(t, err, postgres.ErrPooler)
			if mode != "session" {
				return
			}
			admin := s.Connect(t)
			a := postgres.NewLock(newDBAt(t, s, addr, postgres.WithSessionPooler()), t.Name())
			b := postgres.NewLock(newDBAt(t, s, addr, postgres.WithSessionPooler()), t.Name())
			must.Succeed(t, a.Acquire(background))
			acquired := must.Go(func() error { return b.Acquire(background) })
			awaitLocks(t, admin, t.Name(), 1, 1)
			must.Succeed(t, a.Release())
			must.Succeed(t, <-acquired)
			must.Succeed(t, b.Release())
			awaitLocks(t, admin, t.Name(), 0, 0)
		})
	}
}
