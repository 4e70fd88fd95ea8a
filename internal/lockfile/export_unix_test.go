//go:build unix

package lockfile

import "testing"

var (
	openBelow in[func(path string, flags int, open func() (int, error)) (int, error)]
	fchmodIn  = make(chan func(chmod func() error) error, 1)
)

// SetOpen makes the package call f instead of open(2), in dir and below, until the test ends.
func SetOpen(t testing.TB, dir string, f func(path string, flags int, open func() (int, error)) (int, error)) {
	openBelow.set(t, dir, f)
}

// SetFchmod makes the package call f instead of fchmod(2), until the test ends.
func SetFchmod(t testing.TB, f func(chmod func() error) error) {
	fchmodIn <- f
	t.Cleanup(func() { <-fchmodIn })
}

func init() {
	open, fchmod := sys.open, sys.fchmod
	sys.open = func(path string, flags int, perm uint32) (int, error) {
		if f, ok := openBelow.get(path); ok {
			return f(path, flags, func() (int, error) { return open(path, flags, perm) })
		}
		return open(path, flags, perm)
	}
	sys.fchmod = func(fd int, mode uint32) error {
		select {
		case f := <-fchmodIn:
			defer func() { fchmodIn <- f }()
			return f(func() error { return fchmod(fd, mode) })
		default:
			return fchmod(fd, mode)
		}
	}
}
