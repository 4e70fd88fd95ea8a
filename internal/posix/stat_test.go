//go:build unix

package posix

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Stat, stat and Fstat return the same information, on all kinds of file systems and for paths
// of any length.
func TestSameAnswer(t *testing.T) {
	dir := t.TempDir()
	paths := []string{dir, "/", ".", "..", "/dev", "/dev/null", "/dev/shm", "/proc/self/fd", "/sys", os.Args[0]}
	for n := 1; n < 255; n++ {
		path := filepath.Join(dir, strings.Repeat("x", n))
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		link := filepath.Join(dir, strings.Repeat("y", n))
		if err := os.Symlink(path, link); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path, link)
	}
	paths = append(paths, filepath.Join(dir, strings.Repeat("x/../", 500), "x"))
	for _, path := range paths {
		want, err := stat(path)
		if err != nil {
			t.Logf("without %s: %v", path, err)
			continue
		}
		if got, err := Stat(path); got != want || err != nil {
			t.Errorf("%s: %v, %v; want %v", path, got, err, want)
		}
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Fstat(fd); got != want || err != nil {
			t.Errorf("%s, open: %v, %v; want %v", path, got, err, want)
		}
		unix.Close(fd)
	}
}

// Stat returns the same errors as stat(2).
func TestSameError(t *testing.T) {
	dir := t.TempDir()
	file, loop := filepath.Join(dir, "file"), filepath.Join(dir, "loop")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{
		"":                               unix.ENOENT,
		file + "2":                       unix.ENOENT,
		file + "/":                       unix.ENOTDIR,
		file + "/x":                      unix.ENOTDIR,
		loop:                             unix.ELOOP,
		file + "\x00":                    unix.EINVAL,
		dir + strings.Repeat("x", 256):   unix.ENAMETOOLONG,
		dir + strings.Repeat("/x", 5000): unix.ENAMETOOLONG,
	} {
		if _, err := Stat(path); err != want {
			t.Errorf("%.50q: %v, want %v", path, err, want)
		}
	}
	if _, err := Fstat(-1); err != unix.EBADF {
		t.Errorf("not open: %v", err)
	}
}
