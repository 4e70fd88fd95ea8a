package postgres

import (
	"time"

	"golang.org/x/sys/unix"
)

// now returns the time since the machine was started. It includes the time for which the machine was
// suspended, unlike the clock that package time measures with.
func now() instant {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return instant(time.Since(start))
	}
	return instant(t.Nano())
}
