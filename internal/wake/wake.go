// Package wake tells who waits for a lock on a file when a try is worth it: when
// somebody has closed the file, or has removed or renamed it.
//
// Locks are released without any event, but who releases one closes its file
// (Python's fasteners does, this module does), and the kernel does it for a
// process that dies. A foreign program that unlocks and keeps its file open, and
// another host, make no event here.
//
// Where there are no events at all, a Watch is a timer.
package wake

import (
	"context"
	"time"
)

// wait waits for an event, for d, or until ctx is done, and reports whether it was an event.
func wait(ctx context.Context, d time.Duration, event <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-event:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}
