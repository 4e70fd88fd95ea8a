//go:build unix || windows

package lockfile

import (
	"strings"
	"sync"
	"testing"
)

// Cut is cut, for tests.
var Cut = cut

// In has, by directory, a function that is called for each path in it, and for each that leads to
// it, and can make the call fail.
type in[F any] struct{ m sync.Map }

func (in *in[F]) set(t testing.TB, dir string, f F) {
	in.m.Store(dir, f)
	t.Cleanup(func() { in.m.Delete(dir) })
}

func (in *in[F]) get(path string) (f F, ok bool) {
	in.m.Range(func(dir, v any) bool {
		if strings.HasPrefix(path, dir.(string)) {
			f, ok = v.(F), true
		}
		return !ok
	})
	return f, ok
}

var mkdirIn in[func(path string, mkdir func() error) error]

// SetMkdir makes the package call f instead of mkdir(2), in dir and below, until the test ends.
func SetMkdir(t testing.TB, dir string, f func(path string, mkdir func() error) error) {
	mkdirIn.set(t, dir, f)
}

func init() {
	mkdir := sys.mkdir
	sys.mkdir = func(path string, mode uint32) error {
		if f, ok := mkdirIn.get(path); ok {
			return f(path, func() error { return mkdir(path, mode) })
		}
		return mkdir(path, mode)
	}
}
