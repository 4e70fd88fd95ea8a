package worker

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Operations is the number of operations that a tally tells apart.
const Operations = 8

// A Tally is what a goroutine counts. Others may read it at any time.
type Tally struct {
	Waiting    atomic.Int64 // since then the goroutine acquires the lock; 0 if it does not
	Violations atomic.Uint64
	Ended      atomic.Uint64 // waits that a context has ended
	Longest    atomic.Int64  // of the waits that have succeeded, in nanoseconds
	Attempts   [Operations]atomic.Uint64
	Acquired   [Operations]atomic.Uint64
	Waits      [WaitBuckets]atomic.Uint64 // that have succeeded, by length
}

// Waits are counted in buckets whose limits grow by an eighth.
const (
	subBits     = 3
	WaitBuckets = 64 << subBits
)

// WaitBucket returns the bucket of a wait.
func WaitBucket(d time.Duration) int {
	n := uint64(max(d, 1<<subBits))
	shift := bits.Len64(n) - 1 - subBits
	return shift<<subBits + int(n>>shift)
}

// WaitOf returns the greatest wait of a bucket.
func WaitOf(bucket int) time.Duration {
	shift := max(0, bucket>>subBits-1)
	return time.Duration(uint64(bucket-shift<<subBits+1)<<shift - 1)
}
