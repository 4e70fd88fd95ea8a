package lease_test

import (
	"context"
	"fmt"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/lease"
)

// A Client has the locks of this process on a server.
type Client struct {
	server *server
	engine lease.Engine[*hold]
}

const (
	ttl      = 10 * time.Second
	margin   = ttl / 10
	interval = 100 * time.Millisecond // of signs of life
)

// A hold is a lock that is held.
type hold struct {
	lease.Hold
	client *Client
	name   string
	stop   context.CancelFunc // of keepAlive
}

func NewClient(s *server) *Client {
	c := &Client{server: s}
	c.engine.Acquire = c.acquire
	return c
}

// acquire acquires a lock, with a lease of its own.
func (c *Client) acquire(ctx context.Context, name string, m lease.Mode, try bool) (*hold, error) {
	token, err := c.server.lock(ctx, name, m, try)
	switch {
	case err == errHeld && try:
		return nil, lease.ErrBusy
	case err == errHeld:
		return nil, &fasteners.HeldError{Err: lease.ContextError(ctx)}
	case err != nil:
		return nil, err
	}
	// It is not known when the server granted the lock. But it has not ended a lease that it
	// renews now.
	sent := lease.Now()
	if err := c.server.renew(name, token); err != nil {
		return nil, err
	}
	l := lease.New(sent, ttl, margin)
	h := &hold{Hold: lease.Hold{Lease: l, Token: token}, client: c, name: name}
	ctx, h.stop = context.WithCancel(l.Context())
	go h.keepAlive(ctx)
	return h, nil
}

// keepAlive sends signs of life until the lock is released or lost.
func (h *hold) keepAlive(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(interval):
		}
		sent := lease.Now()
		switch err := h.client.server.renew(h.name, h.Token); err {
		case nil:
			h.Lease.Renew(sent, ttl)
		case errGone:
			h.Lease.Lose(err)
		}
	}
}

func (h *hold) Release() error {
	defer h.Lease.Close()
	h.stop()
	if err := h.client.server.unlock(h.name, h.Token); err != nil {
		return fmt.Errorf("%w: %w", fasteners.ErrLost, err)
	}
	return nil
}

// A Lock is an exclusive lock.
type Lock struct{ handle lease.Handle[*hold] }

func NewLock(c *Client, name string) *Lock {
	return &Lock{lease.Handle[*hold]{Engine: &c.engine, Name: name}}
}

func (l *Lock) Acquire(ctx context.Context) error { return l.handle.Acquire(ctx, lease.Exclusive) }
func (l *Lock) Release() error                    { return l.handle.Release(lease.Exclusive) }

func (l *Lock) Hold(ctx context.Context) (context.Context, func() error, error) {
	return l.handle.Hold(ctx, lease.Exclusive)
}

func Example() {
	client := NewClient(newServer())
	lock := NewLock(client, "report")
	err := fasteners.WithLock(context.Background(), lock, func(ctx context.Context) error {
		token, _ := fasteners.Token(ctx)
		fmt.Println("held, with the token", token)

		other, cancel := context.WithTimeout(ctx, time.Millisecond)
		defer cancel()
		fmt.Println(NewLock(client, "report").Acquire(other))
		return nil
	})
	fmt.Println(err)
	// Output:
	// held, with the token 1
	// acquire report: held by an unknown process: context deadline exceeded
	// <nil>
}
