package stress

import (
	"testing"

	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/worker"
)

func TestQuantile(t *testing.T) {
	var waits [worker.WaitBuckets]uint64
	if got := quantile(&waits, 0.5); got != 0 {
		t.Errorf("got %v of no waits", got)
	}
	waits[worker.WaitBucket(1000)], waits[worker.WaitBucket(5000)] = 98, 2
	if got, want := quantile(&waits, 0.5), worker.WaitOf(worker.WaitBucket(1000)); got != want {
		t.Errorf("p50 is %v, want %v", got, want)
	}
	if got, want := quantile(&waits, 0.99), worker.WaitOf(worker.WaitBucket(5000)); got != want {
		t.Errorf("p99 is %v, want %v", got, want)
	}
}
