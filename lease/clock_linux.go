package lease

import (
	"time"

	"golang.org/x/sys/unix"
)

func boottime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return time.Since(start) // a sandbox that does not know the clock never does
	}
	return time.Duration(t.Nano())
}
