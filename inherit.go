package fasteners

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/go-fasteners/fasteners/internal/table"
)

// WithFile makes the lock belong to the open file description of f (open(2)) instead of one that is
// opened by path. Processes that have inherited f hold the lock together. It is for a process that is
// given an open file to lock, as by a shell:
//
//	exec 9>report.lock
//	fasteners run --fd 9 # the shell holds the lock until it closes descriptor 9 or exits
//
// The lock is released when one of the processes calls Release, or when the last of them has closed the
// file or exited. The path of the lock is used only in errors, and no error is [ErrReplaced]. A file must
// be open for reading to be locked by a reader, and for writing to be locked otherwise, or the error
// wraps [fs.ErrPermission]. It must stay open as long as the lock is used.
//
// A writer that waits for readers does not keep new readers from acquiring the lock: see
// [WithReaderPreference]. Locks that are made with one Option exclude each other. Those of two Options with the
// same open file description do not, as they have the same owner.
//
// Only Linux has such locks, on most file systems. Elsewhere acquiring the lock fails with
// [errors.ErrUnsupported]. A nil f is ignored.
func WithFile(f *os.File) Option {
	if f == nil {
		return option(func(*options) {})
	}
	t := table.New(&inherited{f: f}, idleTimeout) // for all locks that are made with this Option
	return option(func(o *options) { o.table = t })
}

var errOwnedByProcess = fmt.Errorf("locks belong to processes here: %w", errors.ErrUnsupported)

// inherited is the system of a table that has one file, which is already open.
type inherited struct {
	system
	f *os.File
}

func (s *inherited) Open(_ string, mode table.Mode) (table.File, table.ID, error) {
	return openInherited(s.f, mode)
}

func (s *inherited) Create(path string, mode table.Mode, _ fs.FileMode) (table.File, table.ID, error) {
	return s.Open(path, mode)
}

// Holders needs no permission for its question. The table asks it with a file for readers, which there is
// none of if f is open only for writing, as after exec 9>report.lock.
func (s *inherited) Holders(id table.ID, f table.File) ([]table.Holder, error) {
	if f == nil {
		if own, _, err := s.Open("", table.Exclusive); err == nil {
			defer own.Close()
			f = own
		}
	}
	return s.system.Holders(id, f)
}

func (s *inherited) Identify(path string) (table.ID, error) {
	f, id, err := s.Open(path, table.Shared|table.Exclusive)
	if err == nil {
		err = f.Close()
	}
	return id, err
}

func (*inherited) SameFile(string, table.ID) (bool, error) { return true, nil }

// File returns a duplicate of the descriptor that the lock is held through. A process that inherits it
// ([os/exec.Cmd.ExtraFiles]) holds the lock together with this one, even if this one is killed. If this
// process calls Release, that releases the lock for both. Otherwise the lock is released when both have
// exited or closed the file. The caller must close the duplicate.
//
// The error wraps [ErrNotAcquired] if the lock is not held through l, and [errors.ErrUnsupported] where a
// lock belongs to the process that has acquired it: on systems other than Linux, and on some file
// systems.
func (l *InterProcessLock) File() (*os.File, error) { return l.file(&l.holds) }

// File returns a duplicate of the descriptor that the lock is held through, as a reader or as a writer,
// like [InterProcessLock.File].
func (l *InterProcessReaderWriterLock) File() (*os.File, error) {
	return l.file(&l.writers, &l.readers)
}

// file keeps mu, so that the hold is not released before there is a duplicate.
func (h *handle) file(lists ...*holds) (*os.File, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range lists {
		if n := len(*l); n > 0 {
			f, err := (*l)[n-1].Duplicate()
			return f, h.pathError("duplicate", err)
		}
	}
	return nil, h.pathError("duplicate", ErrNotAcquired)
}
