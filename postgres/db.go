package postgres

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"

	"github.com/jackc/pgx/v5"
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
	var grants []*grant
	for _, e := range db.entries {
		e.failLocked(ErrClosed)
		if e.grant != nil {
			grants = append(grants, e.grant)
		}
	}
	idle := db.idle
	db.idle = nil
	db.mu.Unlock()
	for _, g := range grants {
		g.lose(ErrClosed)
	}
	db.close()
	for _, i := range idle {
		i.timer.Stop()
		i.session.close()
	}
	db.running.Wait()
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
