package postgres

import (
	"context"
	"fmt"
	"io/fs"
	"sync"

	"github.com/go-fasteners/fasteners/lease"
	"github.com/jackc/pgx/v5"
)

// A DB has the locks of one process in one database, and the connections that
// they use. A process should have only one for each database: goroutines that
// use different ones do not share connections.
//
// It may be used by any number of goroutines.
type DB struct {
	config  *pgx.ConnConfig
	options options
	engine  lease.Engine[*hold]

	mu      sync.Mutex // protects all that follows, and all entries and grants
	entries map[string]*entry
	idle    []idleSession // oldest first
	closed  bool

	closing context.Context // done when the DB is closed
	close   context.CancelFunc
	running sync.WaitGroup // of all goroutines that use a session
}

// New returns a DB. It does not connect: the configuration and the options are
// checked when a lock is acquired. The configuration must have been made by
// [pgx.ParseConfig], and is copied.
func New(config *pgx.ConnConfig, opts ...Option) *DB {
	db := &DB{options: newOptions(opts), entries: make(map[string]*entry)}
	db.closing, db.close = context.WithCancel(context.Background())
	db.engine = lease.Engine[*hold]{
		Acquire: db.acquire,
		Timeout: db.options.timeout,
		Logger:  db.options.logger,
		Invalid: db.options.invalid,
	}
	if config == nil {
		db.engine.Invalid = fmt.Errorf("nil configuration: %w", fs.ErrInvalid)
		return db
	}
	db.config = config.Copy()
	setKeepAlive(&db.config.Config, db.options.ttl)
	setCancelHandler(&db.config.Config, db.options.ttl)
	return db
}

// newHandle returns what a lock of the DB consists of. If that is nil, nothing
// can be acquired.
func newHandle(db *DB, name string) lease.Handle[*hold] {
	if db == nil {
		return lease.Handle[*hold]{Name: name}
	}
	return lease.Handle[*hold]{Engine: &db.engine, Name: name}
}

// Close closes all connections, and waits until that is done. Locks that are
// held are lost: first their contexts are done, and then others can acquire
// them. Waits end with an error that wraps [ErrClosed].
//
// If ctx is done before all connections are closed, such as one that a function
// of [InTx] still uses, Close returns an error, and the others are closed
// without it. Whatever the error, the DB is closed. Closing it again does
// nothing but wait.
func (db *DB) Close(ctx context.Context) error {
	if ctx == nil {
		return lease.PathError("close", "database", fmt.Errorf("nil context: %w", fs.ErrInvalid))
	}
	db.mu.Lock()
	db.closed = true
	for _, e := range db.entries {
		e.failLocked(ErrClosed)
		if e.grant != nil {
			e.grant.lease.Lose(ErrClosed)
		}
	}
	idle := db.idle
	db.idle = nil
	db.mu.Unlock()
	db.close()

	closed := make(chan struct{})
	go func() {
		defer close(closed)
		for _, i := range idle {
			i.timer.Stop()
			i.session.close()
		}
		db.running.Wait()
	}()
	select {
	case <-closed:
		return nil
	case <-ctx.Done():
		return lease.PathError("close", "database", lease.WithCause(lease.ContextError(ctx), errInUse))
	}
}
