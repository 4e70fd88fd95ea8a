package claim

import (
	"os"
	"testing"
)

// All claims have one descriptor, and the last takes it along.
func TestDescriptors(t *testing.T) {
	before := descriptors(t)
	var drops []func()
	for i := range uint64(100) {
		drops = append(drops, Make(volume, file+i))
	}
	if n := descriptors(t); n != before+1 {
		t.Errorf("%d descriptors more, want 1", n-before)
	}
	for _, drop := range drops {
		drop()
	}
	if n := descriptors(t); n != before {
		t.Errorf("%d descriptors are left", n-before)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}
