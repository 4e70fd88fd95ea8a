package lease_test

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/go-fasteners/fasteners/lease"
)

// A server grants locks in order of arrival. It stands for one on another machine.
type server struct {
	mu     sync.Mutex
	claims map[string][]*claim // on each lock, in order of arrival
	tokens int64
}

// A claim is that of a holder or of a waiter.
type claim struct {
	mode    lease.Mode
	granted chan struct{} // closed when token is set
	token   int64
}

var (
	errHeld = errors.New("server: lock is held")
	errGone = errors.New("server: no such claim")
)

func newServer() *server { return &server{claims: map[string][]*claim{}} }

// lock waits until the lock is granted, and returns the token. With try it does not wait.
func (s *server) lock(ctx context.Context, name string, m lease.Mode, try bool) (int64, error) {
	c := &claim{mode: m, granted: make(chan struct{})}
	s.change(name, func(claims []*claim) []*claim { return append(claims, c) })
	done := ctx.Done()
	if try {
		closed := make(chan struct{})
		close(closed)
		done = closed
	}
	select {
	case <-c.granted:
		return c.token, nil
	default:
	}
	select {
	case <-c.granted:
		return c.token, nil
	case <-done:
		s.change(name, func(claims []*claim) []*claim {
			return slices.DeleteFunc(claims, func(o *claim) bool { return o == c })
		})
		return 0, errHeld
	}
}

// renew tells that the holder with that token is alive.
func (s *server) renew(name string, token int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.ContainsFunc(s.claims[name], func(c *claim) bool { return c.token == token }) {
		return errGone
	}
	return nil
}

func (s *server) unlock(name string, token int64) (err error) {
	s.change(name, func(claims []*claim) []*claim {
		i := slices.IndexFunc(claims, func(c *claim) bool { return c.token == token })
		if i < 0 {
			err = errGone
			return claims
		}
		return slices.Delete(claims, i, i+1)
	})
	return err
}

// expire takes the lock from all who hold it, as when it has heard nothing from them for the TTL.
func (s *server) expire(name string) {
	s.change(name, func(claims []*claim) []*claim {
		return slices.DeleteFunc(claims, func(c *claim) bool { return c.token != 0 })
	})
}

// change changes the claims on a lock, and grants it to those that can have it then.
func (s *server) change(name string, change func([]*claim) []*claim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.claims[name] = change(s.claims[name])
	for i, c := range s.claims[name] {
		if c.mode == lease.Exclusive && i > 0 {
			break
		}
		if c.token == 0 {
			s.tokens++
			c.token = s.tokens
			close(c.granted)
		}
		if c.mode == lease.Exclusive {
			break
		}
	}
}
