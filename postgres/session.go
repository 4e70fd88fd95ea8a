package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/go-fasteners/fasteners/lease"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A session is a connection to the server. One goroutine at a time uses it.
//
// After an error the server may have granted a lock to the session all the
// same. So a session is closed after any error.
type session struct {
	db    *DB
	conn  *pgx.Conn
	pid   uint32    // of the server's process
	begin time.Time // of that process, by the clock of the server
	used  bool      // it has served before, and the server may have closed it meanwhile
	lent  *atomic.Bool
}

// suffix is the end of the names of the server's functions for a mode.
func suffix(m lease.Mode) string {
	if m == lease.Shared {
		return "_shared"
	}
	return ""
}

// Key returns the key of the advisory lock on a name, for
// pg_advisory_lock(bigint): the first eight bytes of the SHA-256 hash of the
// name, as a big-endian number.
func Key(name string) int64 {
	sum := sha256.Sum256([]byte(name))
	return int64(binary.BigEndian.Uint64(sum[:]))
}

// setKeepAlive makes the kernel notice soon that the server cannot be reached.
// Nothing else does while a session waits for a lock.
func setKeepAlive(c *pgconn.Config, ttl time.Duration) {
	dial := c.DialFunc
	if dial == nil {
		return
	}
	interval := max(ttl/4, time.Second)
	c.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if tcp, ok := conn.(*net.TCPConn); ok && err == nil {
			err = tcp.SetKeepAliveConfig(net.KeepAliveConfig{
				Enable: true, Idle: interval, Interval: interval, Count: 3,
			})
		}
		return conn, err
	}
}

// connectTimeout bounds an attempt to open a session. There will be another
// one.
const connectTimeout = 10 * time.Second

// once makes a statement take a single round trip: it is not prepared first.
const once = pgx.QueryExecModeExec

// connect opens a session. It waits until no holder from before the start of
// the server can take itself for one. With try it returns lease.ErrBusy
// instead.
func (db *DB) connect(ctx context.Context, try bool) (*session, error) {
	attempt, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(attempt, db.config)
	if err != nil {
		return nil, err
	}
	s := &session{db: db, conn: conn, lent: &conn.PgConn().CustomData()[lentKey].(*cancelHandler).lent}
	wait, err := s.inspect(attempt)
	switch {
	case err != nil:
	case wait > 0 && try:
		err = lease.ErrBusy
	case wait > 0:
		// There is no time limit for the session yet.
		err = sleep(ctx, wait)
	}
	if err == nil {
		err = s.prepare(ctx)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// inspect makes sure that the server's locks can be relied on. It returns for
// how long there may still be holders from before the server's start.
//
// When one of its processes crashes, the server ends all sessions and starts
// anew, and all locks are free, but pg_postmaster_start_time does not change.
// The statistics are then reset.
func (s *session) inspect(ctx context.Context) (wait time.Duration, err error) {
	var version int
	var recovery bool
	var up float64
	err = s.conn.QueryRow(ctx, `
		SELECT pg_backend_pid(), current_setting('server_version_num')::int, pg_is_in_recovery(),
			extract(epoch FROM clock_timestamp() - greatest(pg_postmaster_start_time(),
				(SELECT stats_reset FROM pg_stat_bgwriter)))::float8,
			(SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())`, once,
	).Scan(&s.pid, &version, &recovery, &up, &s.begin)
	switch {
	case err != nil:
		return 0, err
	case s.pid != s.conn.PgConn().PID() && !s.db.options.pooler:
		return 0, ErrPooler
	case version < 14_00_00:
		return 0, fmt.Errorf("PostgreSQL %d is too old, 14 is needed: %w",
			version/10000, errors.ErrUnsupported)
	case recovery:
		return 0, fmt.Errorf("the server is a standby, whose locks exclude nobody elsewhere: %w",
			errors.ErrUnsupported)
	}
	return s.db.options.ttl - time.Duration(up*float64(time.Second)), nil
}

// prepare makes the server end the session, and so release its lock, when it
// has heard nothing for the TTL, and not before:
//
//   - The server measures the time from when it has sent an answer and waits
//     for the next statement. That is later than when this process has sent the
//     statement that was answered. Within a transaction another setting
//     applies.
//   - TCP must not give up earlier on a peer that does not answer.
//
// A sequence is reliable after a crash only if a commit waits for the disk.
func (s *session) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	ttl := s.db.options.ttl
	seconds := strconv.Itoa(int((ttl + time.Second - 1) / time.Second))
	_, err := s.conn.Exec(ctx, `
		SELECT set_config(name, value, false) FROM (VALUES
			('idle_session_timeout', $1), ('idle_in_transaction_session_timeout', $1),
			('tcp_user_timeout', $1), ('tcp_keepalives_count', '3'),
			('tcp_keepalives_idle', $2), ('tcp_keepalives_interval', $2),
			('statement_timeout', '0'), ('lock_timeout', '0'), ('transaction_timeout', '0'),
			('synchronous_commit', coalesce(nullif(current_setting('synchronous_commit'), 'off'), 'on')),
			('application_name', 'fasteners')) AS v (name, value)
		WHERE current_setting(name, true) IS NOT NULL`, once, milliseconds(ttl), seconds)
	if err != nil {
		return err
	}
	// So the server notices that the process of a waiter has exited. Not every
	// system can tell.
	_, err = s.conn.Exec(ctx, `SELECT set_config('client_connection_check_interval', $1, false)`, once,
		milliseconds(min(ttl/4, time.Second)))
	if err != nil && !hasCode(err, "22023") {
		return err
	}
	if s.db.options.sequence == "" {
		return nil
	}
	if err := s.prepareSequence(ctx); err != nil {
		return fmt.Errorf("sequence %s for tokens: %w", s.db.options.sequence, err)
	}
	return nil
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// prepareSequence creates the sequence if it does not exist, and makes sure
// that its values are in order.
func (s *session) prepareSequence(ctx context.Context) error {
	name := s.db.options.sequence
	for created := false; ; created = true {
		var ordered bool
		err := s.conn.QueryRow(ctx, `SELECT seqincrement > 0 AND seqcache = 1 AND NOT seqcycle
			FROM pg_sequence WHERE seqrelid = to_regclass($1)`, once, name).Scan(&ordered)
		switch {
		case err == nil && !ordered:
			return errors.New("it must ascend, not cycle, and not cache values")
		case !errors.Is(err, pgx.ErrNoRows) || created:
			return err
		}
		// Of two sessions that create it at the same time, one can fail.
		_, err = s.conn.Exec(ctx, `CREATE SEQUENCE IF NOT EXISTS `+name)
		if err != nil && !hasCode(err, "23505", "42P07") {
			return err
		}
	}
}

// lock acquires the lock, and waits for it in the queue of the server. With try
// it returns lease.ErrBusy instead of waiting. It returns the token, or 0, and
// a time after which the server hears nothing from the session.
//
// Each statement takes the lock first, and then the token: a row of a
// materialized query is there before what is computed of it.
func (s *session) lock(ctx context.Context, key int64, m lease.Mode, try bool,
) (token int64, sent time.Duration, err error) {
	sent = lease.Now()
	locked, sql := true, ``
	if try {
		sql = `WITH l AS MATERIALIZED (SELECT pg_try_advisory_lock` + suffix(m) + `($1) AS ok)`
	} else {
		sql = `WITH l AS MATERIALIZED (SELECT pg_advisory_lock` + suffix(m) + `($1), true AS ok)`
	}
	if sequence := s.db.options.sequence; sequence != "" {
		sql += ` SELECT ok, CASE WHEN ok THEN nextval($2::text::regclass) ELSE 0 END FROM l`
		err = s.conn.QueryRow(ctx, sql, key, sequence).Scan(&locked, &token)
	} else {
		err = s.conn.QueryRow(ctx, sql+` SELECT ok FROM l`, key).Scan(&locked)
	}
	if err == nil && !locked {
		err = lease.ErrBusy
	}
	// After a wait, the session may have been idle for as long as this answer
	// was on its way, or this process was stopped.
	if err == nil && lease.Now()-sent > s.db.options.ttl/4 {
		sent = lease.Now()
		err = s.signOfLife(ctx)
	}
	return token, sent, err
}

// signOfLife tells the server that this process is alive. If it returns nil,
// the session has all its locks.
func (s *session) signOfLife(ctx context.Context) error {
	_, err := s.conn.Exec(ctx, `SELECT 1`)
	return err
}

// unlock releases the lock. If it returns nil, the session has had the lock
// until now.
func (s *session) unlock(ctx context.Context, key int64, m lease.Mode) error {
	var ok bool
	err := s.conn.QueryRow(ctx, `SELECT pg_advisory_unlock`+suffix(m)+`($1)`, key).Scan(&ok)
	if err == nil && !ok {
		err = errors.New("the session does not have the lock")
	}
	return err
}

// contended reports whether another session waits for the lock.
func (s *session) contended(ctx context.Context, key int64) (waits bool, err error) {
	err = s.conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND `+isLock+`)`,
		int64(uint64(key)>>32), int64(uint32(key))).Scan(&waits)
	return waits, err
}

// watch reports whether another session has the lock, and for how long it has
// been idle.
func (s *session) watch(ctx context.Context, other *session, key int64,
) (held bool, idle time.Duration, err error) {
	var seconds *float64
	err = s.conn.QueryRow(ctx, `SELECT
			EXISTS (SELECT FROM pg_locks AS l WHERE l.granted AND l.pid = a.pid AND `+isLock+`),
			CASE WHEN state LIKE 'idle%' THEN extract(epoch FROM clock_timestamp() - state_change)::float8
				WHEN state IN ('active', 'fastpath function call') THEN 0 END
			FROM pg_stat_activity AS a WHERE pid = $3 AND backend_start = $4`,
		int64(uint64(key)>>32), int64(uint32(key)), int32(other.pid), other.begin).Scan(&held, &seconds)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return false, 0, nil
	case err == nil && held && seconds == nil:
		err = errors.New("the server does not track activities")
	case err == nil && held:
		idle = time.Duration(max(0, *seconds) * float64(time.Second))
	}
	return held, idle, err
}

// isLock is a condition for the rows of pg_locks. Both parameters are halves of
// the key.
const isLock = `locktype = 'advisory' AND objsubid = 1 AND classid::bigint = $1 AND objid::bigint = $2
	AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`

// close ends the session, and with it its locks. A nil session is ignored.
func (s *session) close() {
	if s == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.conn.Close(ctx)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
