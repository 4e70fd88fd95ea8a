package fasteners

import (
	"io/fs"
	"os"

	"github.com/go-fasteners/fasteners/internal/lockfile"
	"github.com/go-fasteners/fasteners/internal/locktable"
)

// A system is the operating system, as the lock table sees it. Package lockfile finds, opens
// and creates lock files; how an open one is locked, and what is known of its holders, differs
// between systems and is in lock_*.go, rwlock_*.go and holder_*.go.
type system struct{}

func (*system) Identify(path string) (locktable.ID, error) { return lockfile.Identify(path) }

func (*system) SameFile(path string, id locktable.ID) (bool, error) {
	return lockfile.SameFile(path, id)
}

func (*system) Open(path string, mode locktable.Mode) (locktable.File, locktable.ID, error) {
	return opened(lockfile.Open(path, mode))
}

func (*system) Create(
	path string, mode locktable.Mode, perm fs.FileMode,
) (locktable.File, locktable.ID, error) {
	return opened(lockfile.Create(path, mode, perm))
}

func opened(f lockfile.File, err error) (locktable.File, locktable.ID, error) {
	if err != nil {
		return nil, locktable.ID{}, err
	}
	return newFile(f), f.ID, nil
}

// given is the system of a table that has one file, which was opened by somebody else: see
// WithFile.
type given struct {
	system
	f *os.File
}

func (s *given) Open(_ string, mode locktable.Mode) (locktable.File, locktable.ID, error) {
	return openGiven(s.f, mode)
}

func (s *given) Create(
	path string, mode locktable.Mode, _ fs.FileMode,
) (locktable.File, locktable.ID, error) {
	return s.Open(path, mode)
}

// Holders needs no permission for its question. The table asks it with a file for readers,
// which there is none of if f is open only for writing, as after exec 9>report.lock.
func (s *given) Holders(id locktable.ID, f locktable.File) ([]locktable.Holder, error) {
	if f == nil {
		if own, _, err := s.Open("", locktable.Exclusive); err == nil {
			defer own.Close()
			f = own
		}
	}
	return s.system.Holders(id, f)
}

func (s *given) Identify(path string) (locktable.ID, error) {
	f, id, err := s.Open(path, locktable.Shared|locktable.Exclusive)
	if err == nil {
		err = f.Close()
	}
	return id, err
}

func (*given) SameFile(string, locktable.ID) (bool, error) { return true, nil }
