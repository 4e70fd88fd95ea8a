package etcd

import (
	"time"

	"golang.org/x/sys/unix"
)

// now returns the time since some fixed point. Other than the clock of [time.Since], this one goes on
// while the machine is suspended, as the time of a lease in etcd does.
func now() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return time.Since(start) // a sandbox that does not know the clock never does
	}
	return time.Duration(t.Nano())
}

var start = time.Now()
