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

// lockFileID returns device and inode of the file that path names.
func lockFileID(path string) (device, inode uint64, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return uint64(st.Dev), uint64(st.Ino), nil
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
