package postgres

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
)

// A cancelHandler does what is to be done when the context of a statement ends.
// Usually it makes pgx give up reading, and, unless it was only waiting for a
// notification, cancel the statement and close the connection. While the
// session is lent to a transaction, it asks the server to cancel the statement,
// and the session, with the lock, stays.
type cancelHandler struct {
	lent    atomic.Bool
	close   pgconn.DeadlineContextWatcherHandler
	request pgconn.CancelRequestContextWatcherHandler
	current ctxwatch.Handler
}

const lentKey = "fasteners"

func setCancelHandler(c *pgconn.Config, ttl time.Duration) {
	c.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		h := &cancelHandler{
			close:   pgconn.DeadlineContextWatcherHandler{Conn: conn.Conn()},
			request: pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: ttl},
		}
		conn.CustomData()[lentKey] = h
		return h
	}
}

func (h *cancelHandler) HandleCancel(ctx context.Context) {
	h.current = &h.close
	if h.lent.Load() {
		h.current = &h.request
	}
	h.current.HandleCancel(ctx)
}

func (h *cancelHandler) HandleUnwatchAfterCancel() { h.current.HandleUnwatchAfterCancel() }
