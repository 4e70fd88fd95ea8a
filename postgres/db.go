package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

var (
	// ErrClosed is wrapped by the error returned when acquiring a lock of a [DB] that is closed.
	ErrClosed = errors.New("data base handle is closed")

	// ErrPooler is wrapped by the error returned when acquiring a lock through a connection pooler such as
	// PgBouncer, which may give the session of the lock to another client: see [WithSessionPooler].
	ErrPooler = errors.New("there is a connection pooler between here and the server")
)

// A DB has the locks of one process in one data base, and the connections that they use. A process should
// have only one for each data base: goroutines that use different ones do not share connections.
//
// It may be used by any number of goroutines.
type DB struct {
	config  *pgx.ConnConfig
	options options

	mu      sync.Mutex // protects all that follows, and all entries and grants
	entries map[string]*entry
	idle    []idleSession // oldest first
	closed  bool

	closing context.Context // done when the DB is closed
	close   context.CancelFunc
	running sync.WaitGroup // of all goroutines that use a session
}

// New returns a DB. It does not connect: the configuration and the options are checked when a lock is
// acquired. The configuration must have been made by [pgx.ParseConfig], and is copied.
func New(config *pgx.ConnConfig, opts ...Option) *DB {
	db := &DB{options: defaults, entries: make(map[string]*entry)}
	db.closing, db.close = context.WithCancel(context.Background())
	for _, o := range opts {
		if o != nil {
			o.apply(&db.options)
		}
	}
	db.options.margin = db.options.ttl / 10
	if config == nil {
		db.options.invalid = fmt.Errorf("nil configuration: %w", fs.ErrInvalid)
		return db
	}
	db.config = config.Copy()
	setKeepAlive(&db.config.Config, db.options.ttl)
	setCancelHandler(&db.config.Config, db.options.ttl)
	return db
}

// Close closes all connections, and waits until that is done. Locks that are held are lost, and acquires that
// wait fail.
func (db *DB) Close() {
	db.mu.Lock()
	db.closed = true
	var lost []*hold
	for _, e := range db.entries {
		e.failLocked(ErrClosed)
		if g := e.grant; g != nil {
			lost = append(lost, g.loseLocked(ErrClosed)...)
		}
	}
	idle := db.idle
	db.idle = nil
	db.mu.Unlock()
	for _, h := range lost {
		h.end()
	}
	db.close()
	for _, i := range idle {
		i.timer.Stop()
		i.session.close()
	}
	db.running.Wait()
}

// maxIdle is how many sessions that no lock uses stay open.
const maxIdle = 4

// An idleSession is a session that no lock uses. The timer closes it before the server would.
type idleSession struct {
	session *session
	timer   *time.Timer
}

// takeIdle returns a session that no lock uses, or nil if there is none.
func (db *DB) takeIdle() *session {
	db.mu.Lock()
	defer db.mu.Unlock()
	for len(db.idle) > 0 {
		last := len(db.idle) - 1
		i := db.idle[last]
		db.idle = db.idle[:last]
		if i.timer.Stop() {
			return i.session
		}
	}
	return nil
}

// putIdle keeps a session that holds no lock for later, or closes it. A nil session is ignored.
func (db *DB) putIdle(s *session) {
	if s == nil {
		return
	}
	db.mu.Lock()
	if db.closed || len(db.idle) >= maxIdle || s.conn.IsClosed() {
		db.mu.Unlock()
		s.close()
		return
	}
	i := idleSession{session: s}
	i.timer = time.AfterFunc(db.options.ttl/2, func() { db.closeIdle(s) })
	db.idle = append(db.idle, i)
	db.mu.Unlock()
}

// closeIdle closes a session that has been idle for long enough. If its timer was stopped, it is not called.
func (db *DB) closeIdle(s *session) {
	db.mu.Lock()
	for i := range db.idle {
		if db.idle[i].session == s {
			db.idle = append(db.idle[:i], db.idle[i+1:]...)
			break
		}
	}
	db.mu.Unlock()
	s.close()
}

func (db *DB) log(level slog.Level, what, name string, err error, attrs ...slog.Attr) {
	if db == nil || db.options.logger == nil {
		return
	}
	attrs = append(attrs, slog.String("name", name))
	if err != nil {
		attrs = append(attrs, slog.Any("error", err))
	}
	db.options.logger.LogAttrs(context.Background(), level, "fasteners: "+what, attrs...)
}
