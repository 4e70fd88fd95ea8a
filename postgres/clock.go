package postgres

import "time"

// An instant is a time of a clock that is never set.
type instant time.Duration

func (i instant) add(d time.Duration) instant       { return i + instant(d) }
func (i instant) sub(other instant) time.Duration   { return time.Duration(i - other) }
func (i instant) until(later instant) time.Duration { return later.sub(i) }

var start = time.Now()
