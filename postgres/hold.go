package postgres

import "github.com/go-fasteners/fasteners/lease"

// A hold is one holder of a grant.
type hold struct {
	lease.Hold
	grant    *grant
	released bool // DB.mu protects this
}

// Release lets the goroutine that keeps the grant release the hold.
func (h *hold) Release() error {
	g := h.grant
	mu := &g.entry.db.mu
	mu.Lock()
	h.released = true
	if g.over { // the lock was lost
		mu.Unlock()
		return g.lease.Err()
	}
	result := make(chan error, 1)
	g.leaving = append(g.leaving, result)
	g.interruptLocked()
	mu.Unlock()
	return <-result
}
