//go:build !linux

package lease

import "time"

func boottime() time.Duration { return time.Since(start) }
