package postgres

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

var (
	// ErrClosed is wrapped by the error returned when acquiring a lock of a
	// [DB] that is closed.
	ErrClosed = errors.New("database handle is closed")

	// ErrPooler is wrapped by the error returned when acquiring a lock through
	// a connection pooler such as PgBouncer, which may give the session of the
	// lock to another client: see [WithSessionPooler].
	ErrPooler = errors.New("there is a connection pooler between here and the server")
)

// These are why a lock is lost, besides the deadline of its lease.
var (
	errEnded    = errors.New("the session of the lock is closed")
	errUnusable = errors.New("a transaction has left the session unusable")
)

// errInUse is why closing a DB takes its time.
var errInUse = errors.New("connections are still in use")

func hasCode(err error, codes ...string) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return false
	}
	for _, c := range codes {
		if pg.Code == c {
			return true
		}
	}
	return false
}

// isTransient reports whether an error may soon be over: the server cannot be
// reached, is being started or shut down, has too many connections, or has
// ended the session.
func isTransient(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return hasCode(err, "53300", "57P01", "57P02", "57P03", "57P05") ||
			strings.HasPrefix(pg.Code, "08")
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return !dns.IsNotFound
	}
	var op *net.OpError // a TLS alert is one, too
	return errors.As(err, &op) && !strings.HasSuffix(op.Op, " error") ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, context.DeadlineExceeded)
}
