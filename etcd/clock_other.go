//go:build !linux

package etcd

import "time"

// now returns the time since some fixed point. On some systems this clock stands still while the machine
// is suspended.
func now() time.Duration { return time.Since(start) }

var start = time.Now()
