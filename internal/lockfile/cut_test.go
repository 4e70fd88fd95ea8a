//go:build unix || windows

package lockfile_test

import (
	"testing"

	"github.com/go-fasteners/fasteners/internal/lockfile"
)

type cutTest struct{ path, dir, name string }

// Cut takes the last element and nothing else: see also cutTests of each system.
func TestCut(t *testing.T) {
	for _, test := range append(cutTests,
		cutTest{"", ".", ""},
		cutTest{"lock", ".", "lock"},
		cutTest{".", ".", "."},
		cutTest{"..", ".", ".."},
		cutTest{"./lock", ".", "lock"},
		cutTest{"../lock", "..", "lock"},
		cutTest{"a/lock", "a", "lock"},
		cutTest{"a/", "a", ""},
		cutTest{"a//", "a", ""},
		cutTest{"a//b///lock", "a//b", "lock"},
		cutTest{"a/./lock", "a/.", "lock"},
		cutTest{"a/../lock", "a/..", "lock"},
		cutTest{"a/..", "a", ".."},
		cutTest{"/", "/", ""},
		cutTest{"/lock", "/", "lock"},
		cutTest{"/a/lock", "/a", "lock"},
		cutTest{"/../lock", "/..", "lock"},
	) {
		if dir, name := lockfile.Cut(test.path); dir != test.dir || name != test.name {
			t.Errorf("%q: %q and %q, want %q and %q", test.path, dir, name, test.dir, test.name)
		}
	}
}
