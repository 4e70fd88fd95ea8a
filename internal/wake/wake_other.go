//go:build !linux && !windows

package wake

import (
	"context"
	"time"
)

// A Watch is one waiter's interest in one file.
type Watch struct{}

// New watches the file that fd has open, whatever its name.
func New(fd int) *Watch { return new(Watch) }

// Moved reports whether an event since the last call may mean that the file has another name now, or
// none.
func (w *Watch) Moved() bool { return false }

// Complete reports whether all who close the file make an event.
func (w *Watch) Complete() bool { return false }

// Wait returns true after an event, also one since the last call, and false after d or when ctx is
// done, or earlier.
func (w *Watch) Wait(ctx context.Context, d time.Duration) bool { return wait(ctx, d, nil) }

// Sleep is time.Sleep.
func Sleep(d time.Duration) { time.Sleep(d) }

// Stop ends the watch. Nobody may be in Wait.
func (w *Watch) Stop() {}

// Tidy is for one who has released the lock: there is nothing to do.
func Tidy() {}
