package fasteners

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners/internal/locktable"
	"github.com/go-fasteners/fasteners/internal/posix"
	"github.com/go-fasteners/fasteners/internal/tag"
)

// As in the tests of the folder tests, whose TestMain does this.
func init() {
	posix.ForceProcessOwned.Store(os.Getenv("FASTENERS_TEST_PROCESS_OWNED") != "")
}

// openTwice opens a lock file twice, so that the locks of the two files exclude each other. Where
// locks belong to the process they do not, and the test is skipped.
func openTwice(t *testing.T) (a, b *file) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lock")
	var files []*file
	for range 2 {
		f, _, err := new(system).Create(path, locktable.Exclusive, 0o666)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		files = append(files, f.(*file))
	}
	a, b = files[0], files[1]
	mustLock(t, a, locktable.Exclusive)
	holder, err := b.Conflict(unix.F_WRLCK, posix.Whole)
	if err != nil {
		t.Fatal(err)
	}
	mustUnlock(t, a)
	if holder.Type == unix.F_UNLCK {
		t.Skip("locks belong to the process here")
	}
	return a, b
}

func mustLock(t *testing.T, f *file, mode locktable.Mode) {
	t.Helper()
	if ok, err := f.TryLock(mode); !ok || err != nil {
		t.Fatal(ok, err)
	}
}

func mustUnlock(t *testing.T, f *file) {
	t.Helper()
	if err := f.Unlock(); err != nil {
		t.Fatal(err)
	}
}

// checkConflict checks that f cannot lock r because of a lock of another file on the range want, or
// that it can if wantType is F_UNLCK.
func checkConflict(t *testing.T, f *file, typ int16, r posix.Range, wantType int16, want posix.Range) {
	t.Helper()
	lk, err := f.Conflict(typ, r)
	if err != nil || lk.Type != wantType || wantType != unix.F_UNLCK && (lk.Start != want.Start || lk.Len != want.Len) {
		t.Errorf("lock is %+v, %v; want type %v, %+v", lk, err, wantType, want)
	}
}

var (
	firstByte = posix.Range{Start: 0, Len: 1}
	noRange   posix.Range
)

// The locked ranges are those of docs/protocol.md.
func TestRanges(t *testing.T) {
	a, b := openTwice(t)
	for mode, typ := range map[locktable.Mode]int16{locktable.Exclusive: unix.F_WRLCK, locktable.Shared: unix.F_RDLCK} {
		mustLock(t, a, mode)
		checkConflict(t, b, unix.F_WRLCK, firstByte, typ, a.main())
		checkConflict(t, b, unix.F_WRLCK, posix.Range{Start: a.length, Len: 0}, unix.F_UNLCK, noRange)
		if got := tag.Tag(a.length - mainBase); got > tag.New() || got.PID() != tag.New().PID() {
			t.Errorf("tag is %x", got)
		}
		mustUnlock(t, a)
		checkConflict(t, b, unix.F_WRLCK, posix.Whole, unix.F_UNLCK, noRange)
	}

	// A writer that waits for a reader locks pending, and unlocks it when it downgrades.
	mustLock(t, b, locktable.Shared)
	if err := a.LockPending(); err != nil {
		t.Fatal(err)
	}
	checkConflict(t, b, unix.F_RDLCK, posix.Whole, unix.F_WRLCK, posix.Range{Start: 1<<63 - 2, Len: 0})
	if pending, err := b.Pending(); !pending || err != nil {
		t.Errorf("pending: %v, %v", pending, err)
	}
	mustUnlock(t, b)
	mustLock(t, a, locktable.Exclusive)
	if err := a.Downgrade(); err != nil {
		t.Fatal(err)
	}
	checkConflict(t, b, unix.F_WRLCK, firstByte, unix.F_RDLCK, a.main())
	checkConflict(t, b, unix.F_RDLCK, posix.Whole, unix.F_UNLCK, noRange)
	mustUnlock(t, a)

	// A writer that waits for a writer does not.
	mustLock(t, b, locktable.Exclusive)
	if err := a.LockPending(); err != nil || a.pending {
		t.Errorf("pending: %v, %v", a.pending, err)
	}
}

// Even with the largest possible tag, main does not overlap pending.
func TestRangesDoNotOverlap(t *testing.T) {
	if end := mainBase + int64(tag.Max-1); end != pendingRange.Start || pendingRange.Start != 1<<63-2 {
		t.Errorf("main ends at %#x, pending begins at %#x", end, pendingRange.Start)
	}
}

// On SMB, where locks of one descriptor exclude each other, every lock is on the whole file.
func TestPlainRanges(t *testing.T) {
	a, b := openTwice(t)
	a.plain, b.plain = true, true
	for mode, typ := range map[locktable.Mode]int16{locktable.Exclusive: unix.F_WRLCK, locktable.Shared: unix.F_RDLCK} {
		mustLock(t, a, mode)
		lk, err := b.Conflict(unix.F_WRLCK, posix.Whole)
		if err != nil || lk.Type != typ || lk.Start != 0 || lk.Len != 0 {
			t.Errorf("lock is %+v, %v", lk, err)
		}
		if err := b.LockPending(); err != nil {
			t.Fatal(err)
		}
		if ok, err := b.TryLock(locktable.Exclusive); ok || err != nil {
			t.Error(ok, err)
		}
		if lk, err := a.Conflict(unix.F_WRLCK, posix.Whole); err != nil || lk.Type != unix.F_UNLCK {
			t.Errorf("a writer that waits has locked %+v, %v", lk, err)
		}
		mustUnlock(t, a)
	}
}

// If a downgrade fails in any of its steps, the lock is unchanged.
func TestFailedDowngrade(t *testing.T) {
	for _, step := range []int16{unix.F_UNLCK, unix.F_RDLCK} {
		a, b := openTwice(t)
		mustLock(t, b, locktable.Shared)
		if err := a.LockPending(); err != nil || !a.pending {
			t.Fatal(a.pending, err)
		}
		mustUnlock(t, b)
		mustLock(t, a, locktable.Exclusive)
		posix.Fault = func(_ int, typ int16) error {
			if typ == step {
				return unix.EIO
			}
			return nil
		}
		err := a.Downgrade()
		posix.Fault = nil
		if err != unix.EIO {
			t.Errorf("downgrade: %v", err)
		}
		if ok, err := b.TryLock(locktable.Shared); ok || err != nil {
			t.Errorf("a reader has acquired the lock of a writer: %v, %v", ok, err)
		}
		if err := a.Downgrade(); err != nil {
			t.Error(err)
		}
		if ok, err := b.TryLock(locktable.Shared); !ok || err != nil {
			t.Errorf("a reader has not acquired the lock of a reader: %v, %v", ok, err)
		}
	}
}

// A writer that waits for readers locks pending also if one of them is just about to acquire
// the lock, and so has the whole file locked for an instant.
func TestPendingMeetsReader(t *testing.T) {
	writer, reader := openTwice(t)
	whole := unix.Flock_t{Type: unix.F_RDLCK}
	if err := unix.FcntlFlock(uintptr(reader.FD), unix.F_OFD_SETLK, &whole); err != nil {
		t.Fatal(err)
	}
	reader.length = mainBase
	tries := 0
	posix.Fault = func(_ int, typ int16) error {
		if tries++; typ == unix.F_WRLCK && tries == 5 { // the second try to lock pending
			posix.Fault = nil
			return reader.unlockBehindMain()
		}
		return nil
	}
	defer func() { posix.Fault = nil }()
	if err := writer.LockPending(); err != nil || !writer.pending {
		t.Errorf("pending is locked: %v, %v", writer.pending, err)
	}
}
