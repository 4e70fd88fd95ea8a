//go:build unix

package posix

import "golang.org/x/sys/unix"

// A FileInfo is the identity of a file, with its type and permissions.
type FileInfo struct {
	Dev, Ino uint64
	Mode     uint32
}

// Fstat returns the file that is open as fd.
func Fstat(fd int) (FileInfo, error) {
	var st unix.Stat_t
	err := Retry(func() error { return unix.Fstat(fd, &st) })
	return infoOf(&st), err
}

// stat is Stat as all systems can do it.
//
//go:noinline
func stat(path string) (FileInfo, error) {
	var st unix.Stat_t
	err := Retry(func() error { return unix.Stat(path, &st) })
	return infoOf(&st), err
}

// Retry makes a system call again as long as signals interrupt it. The runtime installs its
// handlers with SA_RESTART, but other code of the program may install some without.
//
// A FUSE server that answers EINTR makes Linux return ERESTARTSYS, though there has been no signal.
// As the server may always answer that, the call is not made again forever.
func Retry(call func() error) error {
	const ERESTARTSYS = unix.Errno(512) // errno.h of the kernel
	for restarts := 0; ; {
		switch err := call(); {
		case err == unix.EINTR:
		case err == ERESTARTSYS && restarts < MaxRestarts:
			restarts++
		case err == ERESTARTSYS:
			return unix.EINTR
		default:
			return err
		}
	}
}

// MaxRestarts is how often Retry makes a call again after ERESTARTSYS.
const MaxRestarts = 100

func infoOf(st *unix.Stat_t) FileInfo {
	return FileInfo{Dev: uint64(st.Dev), Ino: uint64(st.Ino), Mode: uint32(st.Mode)}
}
