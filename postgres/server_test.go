package postgres_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/postgres"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// TestOldServer checks that a server of version 13 is refused. It is one that only knows its version.
func TestOldServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var running sync.WaitGroup
	t.Cleanup(running.Wait)
	t.Cleanup(func() { l.Close() })
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { serveOld(conn) })
		}
	})
	config, err := pgx.ParseConfig("postgres://postgres@" + l.Addr().String() + "/postgres?sslmode=disable")
	must(t, err)
	db := postgres.New(config)
	defer db.Close(background)
	err = postgres.NewLock(db, t.Name()).Acquire(background)
	wantErr(t, err, errors.ErrUnsupported)
	if !strings.Contains(err.Error(), "PostgreSQL 13 is too old") {
		t.Error(err)
	}
}

// serveOld answers every statement with what the first one of a session asks for.
func serveOld(conn net.Conn) {
	defer conn.Close()
	b := pgproto3.NewBackend(conn, conn)
	if _, err := b.ReceiveStartupMessage(); err != nil {
		return
	}
	b.Send(&pgproto3.AuthenticationOk{})
	b.Send(&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{0, 0, 0, 0}})
	b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	var columns []pgproto3.FieldDescription
	for _, oid := range []uint32{23, 23, 16, 701, 1184} { // two integers, a Boolean, a float, a time
		columns = append(columns, pgproto3.FieldDescription{Name: []byte("column"), DataTypeOID: oid})
	}
	row := [][]byte{[]byte("1"), []byte("130014"), []byte("f"), []byte("1000000"), []byte("2020-01-01 00:00:00+00")}
	for b.Flush() == nil {
		message, err := b.Receive()
		if err != nil {
			return
		}
		switch message.(type) {
		case *pgproto3.Parse:
			b.Send(&pgproto3.ParseComplete{})
		case *pgproto3.Bind:
			b.Send(&pgproto3.BindComplete{})
		case *pgproto3.Describe:
			b.Send(&pgproto3.RowDescription{Fields: columns})
		case *pgproto3.Execute:
			b.Send(&pgproto3.DataRow{Values: row})
			b.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
		case *pgproto3.Sync:
			b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		}
	}
}

// A syncBuffer is a buffer that several goroutines write to.
type syncBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func TestLogger(t *testing.T) {
	s := commonServer(t)
	admin := s.Connect(t)
	var out syncBuffer
	logger := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	db := newDB(t, s, postgres.WithLogger(logger))
	lock := postgres.NewReaderWriterLock(db, t.Name())
	must(t, fasteners.WithReadLock(background, lock, func(ctx context.Context) error {
		ok, err := lock.TryAcquireWriteLock(ctx)
		if ok {
			t.Error("a writer beside a reader")
		}
		return err
	}))
	held, release, err := lock.HoldWrite(background)
	must(t, err)
	_, err = admin.Exec(background, "SELECT pg_terminate_backend($1)", int32(locksOf(t, admin, t.Name())[0].PID))
	must(t, err)
	<-held.Done()
	wantErr(t, release(), fasteners.ErrLost)
	must(t, db.Close(background)) // nothing logs any more
	for _, want := range []string{
		`level=DEBUG msg="fasteners: acquire" mode=shared waited=`,
		`level=DEBUG msg="fasteners: try to acquire" mode=exclusive acquired=false path=TestLogger`,
		`level=DEBUG msg="fasteners: release" path=TestLogger`,
		`level=WARN msg="fasteners: lost the lock" path=TestLogger error="lock was lost: FATAL: terminating connection due to administrator command`,
		`error="lock was lost: FATAL:`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the log does not have %s:\n%s", want, out.String())
		}
	}
}
