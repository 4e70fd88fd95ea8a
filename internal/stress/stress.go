// Package stress tells tests how long to try to provoke what need not happen. It bounds the
// time and not the number of rounds, so that a test takes no longer on a machine that is slow,
// or has other things to do.
package stress

import (
	"iter"
	"os"
	"time"
)

// Time is how long a stress test takes. Helper processes inherit it.
var Time = 500 * time.Millisecond

func init() {
	text, ok := os.LookupEnv("FASTENERS_TEST_STRESS")
	if !ok {
		return
	}
	var err error
	if Time, err = time.ParseDuration(text); err != nil {
		panic("FASTENERS_TEST_STRESS: " + err.Error())
	}
}

// Rounds yields the numbers of rounds until the time is over, at least one.
func Rounds() iter.Seq[int] {
	return func(yield func(int) bool) {
		for i, start := 0, time.Now(); yield(i) && time.Since(start) < Time; i++ {
		}
	}
}
