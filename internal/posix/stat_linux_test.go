//go:build !android

package posix

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestNoAllocations(t *testing.T) {
	if err := unix.Statx(unix.AT_FDCWD, "/", 0, 0, new(unix.Statx_t)); err != nil {
		t.Skip("no statx here:", err)
	}
	if n := testing.AllocsPerRun(100, func() { Stat("/"); Stat("/is-not-there") }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
