//go:build unix

package worker

import (
	"os"

	"golang.org/x/sys/unix"
)

// mapShared maps the file into the memory that all processes which do so share.
func mapShared(f *os.File, size int) ([]byte, error) {
	data, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return data, os.NewSyscallError("mmap", err)
}
