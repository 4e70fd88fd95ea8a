package etcd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-fasteners/fasteners/lease"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A Session keeps one lease of etcd alive, for all locks that are made from it. One session for a
// process is enough, whatever the number of its locks and goroutines: they exclude each other as
// processes do.
//
// It takes the lease when the first lock is acquired, and keeps it until Close. If it loses the
// lease, all locks that are held at that time are lost, and the next acquire takes a new lease.
type Session struct {
	client  *clientv3.Client
	options options
	engine  lease.Engine[*hold]

	questions chan struct{} // has an element for each that is sent
	stream    atomic.Pointer[stream]

	// ctx is done when the session is closed, and nothing is to be done any more in the background.
	ctx        context.Context
	cancel     context.CancelFunc
	background sync.WaitGroup

	mu       sync.Mutex
	lease    *sessionLease // the last one, or nil
	granting chan struct{} // closed when the grant ends that is in progress; or nil
	closed   bool
}

// NewSession returns a session that uses client, which remains the caller's to close, after the
// session. It sends nothing: the options are checked, and the lease is granted, when a lock is
// acquired.
func NewSession(client *clientv3.Client, opts ...Option) *Session {
	s := &Session{client: client, options: newOptions(opts), questions: make(chan struct{}, maxQuestions)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.engine = lease.Engine[*hold]{
		Acquire: s.acquire,
		Timeout: s.options.timeout,
		Logger:  s.options.logger,
		Invalid: s.options.invalid,
	}
	if client == nil {
		s.engine.Invalid = fmt.Errorf("nil client: %w", fs.ErrInvalid)
	}
	return s
}

// newHandle returns the handle of a lock of the session, which can be nil.
func newHandle(s *Session, name string) lease.Handle[*hold] {
	if s == nil {
		return lease.Handle[*hold]{Name: name}
	}
	return lease.Handle[*hold]{Engine: &s.engine, Name: name}
}

// Close revokes the lease. Locks that are held are lost: first their contexts are done, and then
// others can acquire them. Waits end with an error that wraps [ErrClosed].
//
// If etcd does not answer before ctx is done, Close returns an error, and etcd keeps the locks
// until the TTL is over. Whatever the error, the session is closed, and nothing of it runs any
// more. Closing it again does nothing.
func (s *Session) Close(ctx context.Context) error {
	if ctx == nil {
		return lease.PathError("close", "session", fmt.Errorf("nil context: %w", fs.ErrInvalid))
	}
	s.mu.Lock()
	l, again := s.lease, s.closed
	s.closed = true
	s.mu.Unlock()
	var err error
	if l != nil && !again {
		l.Lose(errLostByClose)
		err = s.revoke(ctx, l.id)
	}
	s.cancel()
	s.background.Wait()
	return lease.PathError("close", "session", err)
}

func (s *Session) revoke(ctx context.Context, id clientv3.LeaseID) error {
	err := s.call(ctx, func(ctx context.Context) error {
		_, err := s.client.Revoke(ctx, id)
		return err
	})
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return nil
	}
	return err
}

// start calls f in a goroutine that Close waits for, unless the session is closed.
func (s *Session) start(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.background.Go(f)
	}
}

// currentLease returns the lease of the session. If it has none that is not lost, one caller at a
// time asks for a new one.
func (s *Session) currentLease(ctx context.Context) (*sessionLease, error) {
	for {
		s.mu.Lock()
		switch {
		case s.closed:
			s.mu.Unlock()
			return nil, ErrClosed
		case s.lease != nil && s.lease.Err() == nil:
			defer s.mu.Unlock()
			return s.lease, nil
		case s.granting == nil:
			s.granting = make(chan struct{})
			s.mu.Unlock()
			return s.newLease(ctx)
		}
		granting := s.granting
		s.mu.Unlock()
		select {
		case <-granting:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.ctx.Done():
			return nil, ErrClosed
		}
	}
}

func (s *Session) newLease(ctx context.Context) (*sessionLease, error) {
	l, err := s.grant(ctx)
	s.mu.Lock()
	closed := s.closed
	if err == nil && !closed {
		s.lease = l
		s.background.Go(l.keepAlive)
	}
	close(s.granting)
	s.granting = nil
	s.mu.Unlock()
	switch {
	case err != nil:
		return nil, err
	case closed:
		l.Lose(errLostByClose)
		_ = s.revoke(ctx, l.id)
		return nil, ErrClosed
	}
	return l, nil
}

// grant asks for a lease. If there is no answer to a try, what was granted after all has no keys,
// and expires.
func (s *Session) grant(ctx context.Context) (*sessionLease, error) {
	var sent time.Duration
	var resp *clientv3.LeaseGrantResponse
	err := s.call(ctx, func(ctx context.Context) (err error) {
		sent = lease.Now()
		resp, err = s.client.Grant(ctx, int64(s.options.ttl/time.Second))
		return err
	})
	if err != nil {
		return nil, err
	}
	return newLease(s, resp.ID, time.Duration(resp.TTL)*time.Second, sent), nil
}
