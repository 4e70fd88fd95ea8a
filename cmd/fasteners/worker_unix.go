//go:build unix

package main

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// mapShared maps the file into the memory that all processes which do so share.
func mapShared(f *os.File, size int) ([]byte, error) {
	data, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return data, os.NewSyscallError("mmap", err)
}

func inodeOfFile(f *os.File) uint64 {
	info, err := f.Stat()
	if err != nil {
		return 0
	}
	st, _ := info.Sys().(*syscall.Stat_t)
	if st == nil {
		return 0
	}
	return uint64(st.Ino)
}
