package postgres

import (
	"context"
	"slices"
	"time"
)

// maxIdle is how many sessions that no lock uses stay open.
const maxIdle = 4

// An idleSession is a session that no lock uses. The timer closes it before the
// server would.
type idleSession struct {
	session *session
	timer   *time.Timer
}

// session returns a session that no lock uses, or opens one: see connect.
func (db *DB) session(ctx context.Context, try bool) (*session, error) {
	if s := db.takeIdle(); s != nil {
		return s, nil
	}
	return db.connect(ctx, try)
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

// putIdle keeps a session that holds no lock for later, or closes it. A nil
// session is ignored.
func (db *DB) putIdle(s *session) {
	db.mu.Lock()
	surplus := db.putIdleLocked(s)
	db.mu.Unlock()
	surplus.close()
}

// putIdleLocked keeps a session for later, or returns it if the caller has to
// close it.
func (db *DB) putIdleLocked(s *session) (surplus *session) {
	if s == nil || db.closed || len(db.idle) >= maxIdle || s.conn.IsClosed() {
		return s
	}
	timer := time.AfterFunc(db.options.ttl/2, func() { db.closeIdle(s) })
	db.idle = append(db.idle, idleSession{s, timer})
	return nil
}

// closeIdle closes a session that has been idle for long enough. If its timer
// was stopped, it is not called.
func (db *DB) closeIdle(s *session) {
	db.mu.Lock()
	db.idle = slices.DeleteFunc(db.idle, func(i idleSession) bool { return i.session == s })
	db.mu.Unlock()
	s.close()
}
