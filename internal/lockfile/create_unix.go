//go:build unix

package lockfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners/internal/locktable"
	"github.com/go-fasteners/fasteners/internal/posix"
)

const (
	createFlags = unix.O_RDWR | unix.O_CREAT | unix.O_EXCL
	createModes = locktable.Shared | locktable.Exclusive
)

// create creates the file with the permissions perm, or if perm is 0, with 0666 less the umask, as
// open(2) does. Its error wraps fs.ErrExist if path names anything, be it a symbolic link to
// nothing.
//
// Another process may look at the file as soon as it exists. So the file never has more
// permissions than it is to have, and where the system can do that, all of them from the beginning.
func create(path string, perm fs.FileMode) (File, error) {
	if perm == 0 {
		return openFile(path, createFlags, createModes, 0o666)
	}
	f, err := createUnnamed(path, perm)
	if err == nil || err == unix.EEXIST {
		return f, err
	}
	f, err = openFile(path, createFlags, createModes, perm)
	if err != nil {
		return File{}, err
	}
	if err := chmod(f.Handle, perm); err != nil {
		posix.Discard(f.Handle)
		return File{}, fmt.Errorf("%w %04o: %w", errMode, perm, err)
	}
	return f, nil
}

// chmod gives an open file exactly the permissions perm. Where the file system has none, as FAT,
// the file keeps those that all files have there.
func chmod(fd int, perm fs.FileMode) error {
	st, err := posix.Fstat(fd)
	if err != nil || fs.FileMode(st.Mode)&fs.ModePerm == perm {
		return err
	}
	err = posix.Retry(func() error { return sys.fchmod(fd, uint32(perm)) })
	if err == unix.EPERM || err == unix.EINVAL || errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

// mkdir creates a directory that everybody may use, subject to umask.
func mkdir(path string) error {
	err := posix.Retry(func() error { return sys.mkdir(path, 0o777) })
	if err != nil {
		return &fs.PathError{Op: "mkdir", Path: path, Err: err}
	}
	return nil
}

// explain adds to EACCES whose file or directory it is, and its permissions: that is what is to be
// changed, or to be given by WithFileMode.
func explain(err error, what, path string) error {
	if errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("%w: the file system of the %s does not support this", err, what)
	}
	if !errors.Is(err, unix.EACCES) {
		return err
	}
	fi, statErr := os.Stat(path)
	if statErr != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return err
	}
	return fmt.Errorf("%w: the %s belongs to %s and has mode %04o", err, what, userName(st.Uid), fi.Mode().Perm())
}

// userName returns the name of a local user. Package os/user would ask, by cgo, a server for
// others.
func userName(uid uint32) string {
	id := strconv.Itoa(int(uid))
	users, _ := os.ReadFile("/etc/passwd")
	for line := range strings.Lines(string(users)) {
		if fields := strings.Split(line, ":"); len(fields) > 2 && fields[2] == id {
			return fields[0]
		}
	}
	return "user " + id
}
