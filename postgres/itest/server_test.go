package itest

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/go-fasteners/fasteners/internal/enginetest/must"
	"github.com/go-fasteners/fasteners/postgres"
	"github.com/go-fasteners/fasteners/postgres/itest/server"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// TestOldServer checks that a server of version 13 is refused. It is one that only knows its
// version.
func TestOldServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must.Succeed(t, err)
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
	must.Succeed(t, err)
	db := postgres.New(config)
	defer db.Close(background)
	err = postgres.NewLock(db, t.Name()).Acquire(background)
	must.Fail(t, err, errors.ErrUnsupported)
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

func TestStandby(t *testing.T) {
	t.Parallel()
	s := server.New(t)
	s.Stop()
	must.Succeed(t, os.WriteFile(filepath.Join(s.Data(), "standby.signal"), nil, 0o600))
	must.Succeed(t, server.Chown(filepath.Join(s.Data(), "standby.signal")))
	must.Succeed(t, s.Restart())
	err := postgres.NewLock(newDB(t, s), t.Name()).Acquire(background)
	if err == nil {
		t.Fatal("a standby grants a lock")
	}
	t.Log(err)
}
