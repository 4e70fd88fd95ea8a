//go:build !linux

package postgres

import "time"

// now returns the time since the start of the program. The time for which the machine was suspended may be
// missing.
func now() instant { return instant(time.Since(start)) }
