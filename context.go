package fasteners

import (
	"context"
	"sync"
	"sync/atomic"
)

// A lazyContext is a context that its parent stands in for until somebody asks whether it is
// done. Only then it makes the one that can be done earlier, which is expensive: most locks are
// acquired without a wait, and most functions return before anybody asks.
type lazyContext struct {
	context.Context // the parent
	mu              sync.Mutex
	made            atomic.Pointer[context.Context]
}

// get returns the context that make makes, once, of the parent. It calls make with mu held.
func (c *lazyContext) get(make func(parent context.Context) context.Context) context.Context {
	if made := c.made.Load(); made != nil {
		return *made
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if made := c.made.Load(); made != nil {
		return *made
	}
	made := make(c.Context)
	c.made.Store(&made)
	return made
}

// Value returns what package context keeps in the context that was made, for its children and
// for Cause, and otherwise the values of the parent.
func (c *lazyContext) Value(key any) any {
	if made := c.made.Load(); made != nil {
		return (*made).Value(key)
	}
	return c.Context.Value(key)
}
