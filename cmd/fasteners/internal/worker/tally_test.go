package worker

import (
	"math"
	"testing"
	"time"
)

func TestWaitBuckets(t *testing.T) {
	last := -1
	for _, d := range []time.Duration{0, 1, 8, 9, 15, 16, 17, 100, 1e3, 123456, 1e6, 1e9, 3600e9, math.MaxInt64} {
		bucket := WaitBucket(d)
		if bucket < last || bucket >= WaitBuckets {
			t.Errorf("WaitBucket(%d) = %d, after %d", d, bucket, last)
		}
		last = bucket
		if most := WaitOf(bucket); most < d || d >= 16 && float64(most) > 1.125*float64(d) {
			t.Errorf("WaitOf(WaitBucket(%d)) = %d", d, most)
		}
	}
}
