package fasteners

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners/internal/posix"
	"github.com/go-fasteners/fasteners/internal/table"
	"github.com/go-fasteners/fasteners/internal/tag"
)

// failing makes calls of fcntl fail until the end of the test.
func failing(t *testing.T, f func(cmd int, typ int16) error) {
	posix.Fault = f
	t.Cleanup(func() { posix.Fault = nil })
}

// openTwice returns two open files that have nothing to do with each other. Where locks belong to the
// process they would have, and the test is skipped.
func openTwice(t *testing.T) (a, b *file) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lock")
	var files []*file
	for range 2 {
		f, _, err := new(system).Create(path, table.Exclusive, 0o666)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		files = append(files, f.(*file))
	}
	a, b = files[0], files[1]
	if ok, err := a.TryLock(table.Exclusive); !ok || err != nil {
		t.Fatal(ok, err)
	}
	holder, err := b.Conflict(unix.F_WRLCK, posix.Whole)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Unlock(); err != nil {
		t.Fatal(err)
	}
	if holder.Type == unix.F_UNLCK {
		t.Skip("locks belong to the process here")
	}
	return a, b
}

// The ranges are those of docs/protocol.md.
func TestRanges(t *testing.T) {
	a, b := openTwice(t)
	check := func(typ int16, r posix.Range, wantType int16, want posix.Range) {
		t.Helper()
		lk, err := b.Conflict(typ, r)
		if err != nil || lk.Type != wantType || wantType != unix.F_UNLCK && (lk.Start != want.Start || lk.Len != want.Len) {
			t.Errorf("lock is %+v, %v; want type %v, %+v", lk, err, wantType, want)
		}
	}
	first := posix.Range{Start: 0, Len: 1}
	for mode, typ := range map[table.Mode]int16{table.Exclusive: unix.F_WRLCK, table.Shared: unix.F_RDLCK} {
		if ok, err := a.TryLock(mode); !ok || err != nil {
			t.Fatal(ok, err)
		}
		check(unix.F_WRLCK, first, typ, a.main())
		check(unix.F_WRLCK, posix.Range{Start: a.length, Len: 0}, unix.F_UNLCK, first)
		if got := tag.Tag(a.length - mainBase); got > tag.New() || got.PID() != tag.New().PID() {
			t.Errorf("tag is %x", got)
		}
		if err := a.Unlock(); err != nil {
			t.Fatal(err)
		}
		check(unix.F_WRLCK, posix.Whole, unix.F_UNLCK, first)
	}

	// A writer that waits for a reader.
	if ok, err := b.TryLock(table.Shared); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if err := a.LockPending(); err != nil {
		t.Fatal(err)
	}
	check(unix.F_RDLCK, posix.Whole, unix.F_WRLCK, posix.Range{Start: 1<<63 - 2, Len: 0})
	if pending, err := b.Pending(); !pending || err != nil {
		t.Errorf("pending: %v, %v", pending, err)
	}
	if err := b.Unlock(); err != nil {
		t.Fatal(err)
	}
	if ok, err := a.TryLock(table.Exclusive); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if err := a.Downgrade(); err != nil {
		t.Fatal(err)
	}
	check(unix.F_WRLCK, first, unix.F_RDLCK, a.main())
	check(unix.F_RDLCK, posix.Whole, unix.F_UNLCK, first)
	if err := a.Unlock(); err != nil {
		t.Fatal(err)
	}

	// While a writer holds the lock nobody locks pending.
	if ok, err := b.TryLock(table.Exclusive); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if err := a.LockPending(); err != nil || a.pending {
		t.Errorf("pending: %v, %v", a.pending, err)
	}
}

// The largest possible tag keeps main and pending apart.
func TestRangesDoNotOverlap(t *testing.T) {
	if end := mainBase + int64(tag.Max-1); end != pendingRange.Start || pendingRange.Start != 1<<63-2 {
		t.Errorf("main ends at %#x, pending begins at %#x", end, pendingRange.Start)
	}
}

// On SMB no two requests of a descriptor overlap.
func TestPlainRanges(t *testing.T) {
	a, b := openTwice(t)
	a.plain, b.plain = true, true
	for mode, typ := range map[table.Mode]int16{table.Exclusive: unix.F_WRLCK, table.Shared: unix.F_RDLCK} {
		if ok, err := a.TryLock(mode); !ok || err != nil {
			t.Fatal(ok, err)
		}
		lk, err := b.Conflict(unix.F_WRLCK, posix.Whole)
		if err != nil || lk.Type != typ || lk.Start != 0 || lk.Len != 0 {
			t.Errorf("lock is %+v, %v", lk, err)
		}
		if err := b.LockPending(); err != nil {
			t.Fatal(err)
		}
		if ok, err := b.TryLock(table.Exclusive); ok || err != nil {
			t.Error(ok, err)
		}
		if lk, err := a.Conflict(unix.F_WRLCK, posix.Whole); err != nil || lk.Type != unix.F_UNLCK {
			t.Errorf("the other has locked %+v, %v", lk, err)
		}
		if err := a.Unlock(); err != nil {
			t.Fatal(err)
		}
	}
}

// When a downgrade fails, in whichever step, the lock is as it was.
func TestFailedDowngrade(t *testing.T) {
	for _, step := range []int16{unix.F_UNLCK, unix.F_RDLCK} {
		a, b := openTwice(t)
		if ok, err := b.TryLock(table.Shared); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if err := a.LockPending(); err != nil || !a.pending {
			t.Fatal(a.pending, err)
		}
		if err := b.Unlock(); err != nil {
			t.Fatal(err)
		}
		if ok, err := a.TryLock(table.Exclusive); !ok || err != nil {
			t.Fatal(ok, err)
		}
		failing(t, func(_ int, typ int16) error {
			if typ == step {
				return unix.EIO
			}
			return nil
		})
		if err := a.Downgrade(); err != unix.EIO {
			t.Errorf("downgrade: %v", err)
		}
		posix.Fault = nil
		if ok, err := b.TryLock(table.Shared); ok || err != nil {
			t.Errorf("a reader is inside with a writer: %v, %v", ok, err)
		}
		if err := a.Downgrade(); err != nil {
			t.Error(err)
		}
		if ok, err := b.TryLock(table.Shared); !ok || err != nil {
			t.Errorf("a reader beside a reader: %v, %v", ok, err)
		}
	}
}

// A lock that nobody holds, and that may not be locked, is not busy.
func TestRefused(t *testing.T) {
	l := NewInterProcessReaderWriterLock(filepath.Join(t.TempDir(), "lock"))
	failing(t, func(cmd int, typ int16) error {
		if typ != unix.F_UNLCK && cmd != unix.F_OFD_GETLK && cmd != unix.F_GETLK {
			return unix.EACCES
		}
		return nil
	})
	for _, try := range []func() (bool, error){l.TryAcquireReadLock, l.TryAcquireWriteLock} {
		if ok, err := try(); ok || !errors.Is(err, fs.ErrPermission) {
			t.Errorf("try: %v, %v", ok, err)
		}
	}
	for _, acquire := range []func(context.Context) error{l.AcquireReadLock, l.AcquireWriteLock} {
		if err := acquire(t.Context()); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("acquire: %v", err)
		}
	}
}

// What a network file system says of a file that was removed makes acquire start over.
func TestStale(t *testing.T) {
	l := NewInterProcessReaderWriterLock(filepath.Join(t.TempDir(), "lock"))
	left := 5
	failing(t, func(_ int, typ int16) error {
		if left--; left >= 0 {
			return unix.ESTALE
		}
		return nil
	})
	if err := l.AcquireWriteLock(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.ReleaseWriteLock(); err != nil {
		t.Error(err)
	}
	failing(t, func(int, int16) error { return unix.ESTALE })
	if ok, err := l.TryAcquireReadLock(); ok || !errors.Is(err, unix.ESTALE) {
		t.Errorf("try: %v, %v", ok, err)
	}
}
