package claim

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners/internal/fcntl"
)

// A claim is a shared lock on a byte of /dev/null, which everybody can open and nobody else
// locks. It goes when the process dies. Containers that have a /dev each do not see each
// other's claims.
const null = "/dev/null"

// All claims of a process are on one descriptor.
var process struct {
	mu     sync.Mutex
	null   fcntl.Descriptor // open while there are claims
	claims int
}

// Make claims the lock on a file, until drop is called.
func Make(volume, file uint64) (drop func()) {
	process.mu.Lock()
	defer process.mu.Unlock()
	if process.claims == 0 {
		fd, err := open()
		if err != nil {
			return func() {}
		}
		process.null = fcntl.Descriptor{FD: fd, Local: true}
	}
	process.claims++
	r := at(volume, file)
	_, _ = process.null.Try(unix.F_RDLCK, r)
	return func() {
		process.mu.Lock()
		defer process.mu.Unlock()
		// Before it is closed: a child between fork and exec has the descriptor too.
		_ = process.null.Unlock(r)
		if process.claims--; process.claims == 0 {
			_ = unix.Close(process.null.FD)
		}
	}
}

// Made reports whether another process claims the lock on a file.
func Made(volume, file uint64) bool {
	fd, err := open()
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	d := fcntl.Descriptor{FD: fd, Local: true}
	typ, _, err := d.Test(unix.F_WRLCK, at(volume, file))
	return err == nil && typ == unix.F_RDLCK
}

func open() (int, error) {
	return unix.Open(null, unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

// at returns the byte for a file. Should two files have the same, each is sometimes let go
// first for nothing.
func at(volume, file uint64) fcntl.Range {
	const golden = 0x9e3779b97f4a7c15 // 2⁶⁴ divided by the golden ratio, as in Fibonacci hashing
	return fcntl.Range{Start: int64((volume*golden ^ file) * golden >> 2), Len: 1}
}
