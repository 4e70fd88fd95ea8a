package posix

import (
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseLock(t *testing.T) {
	for line, want := range map[string]struct {
		lock Lock
		file string
	}{
		"3: OFDLCK ADVISORY  WRITE -1 fd:00:1234 0 EOF\n":           {Lock{Range{0, 0}, unix.F_WRLCK, -1, false}, "fd:00:1234"},
		"3: -> POSIX  ADVISORY  READ 4711 fd:00:1234 5 9\n":         {Lock{Range{5, 5}, unix.F_RDLCK, 4711, true}, "fd:00:1234"},
		"12:      -> OFDLCK ADVISORY  WRITE -1 00:2f:9 0 7\n":       {Lock{Range{0, 8}, unix.F_WRLCK, -1, true}, "00:2f:9"},
		"\t1: POSIX  MSNFS     READ 17 08:01:42 100 EOF":            {Lock{Range{100, 0}, unix.F_RDLCK, 17, false}, "08:01:42"},
		"1: OFDLCK ADVISORY  READ -1 00:1c:7 0 9223372036854775805": {Lock{Range{0, 9223372036854775806}, unix.F_RDLCK, -1, false}, "00:1c:7"},
	} {
		l, file, ok := parseLock(line)
		if !ok || l != want.lock || file != want.file {
			t.Errorf("%q: %+v, %s, %v", line, l, file, ok)
		}
	}
	for _, line := range []string{
		"", "3:", "3: ->", "1: FLOCK  ADVISORY  WRITE 17 08:01:42 0 EOF", "1: LEASE  ACTIVE    READ 17 08:01:42 0 EOF",
		"1: POSIX  ADVISORY  WRITE 17 08:01:42 x EOF", "1: POSIX  ADVISORY  WRITE 17 08:01:42 9 3", "1: POSIX  ADVISORY  WRITE 17 08:01:42 0",
	} {
		if l, _, ok := parseLock(line); ok {
			t.Errorf("%q: %+v", line, l)
		}
	}
}

// Where a file system has other numbers for stat(2), the known lock tells which file is meant,
// unless several files have the same.
func TestLocksOfKnown(t *testing.T) {
	const ino = 257
	whole := Lock{Range{0, 0}, unix.F_WRLCK, 17, false}
	reader := Lock{Range{0, 8}, unix.F_RDLCK, -1, false}
	for _, test := range []struct {
		name, table string
		known       *Lock
		want        int // locks
	}{
		{"same numbers", "1: POSIX ADVISORY WRITE 17 01:02:257 0 EOF\n2: OFDLCK ADVISORY READ -1 00:2a:257 0 7\n", &reader, 1},
		{"other device", "1: POSIX ADVISORY WRITE 17 00:2a:257 0 EOF\n1: -> POSIX ADVISORY WRITE 18 00:2a:257 0 EOF\n", &whole, 2},
		{"of another process", "1: POSIX ADVISORY WRITE 99 00:2a:257 0 EOF\n", &whole, 0},
		{"of two files with the inode", "1: POSIX ADVISORY WRITE 17 00:2a:257 0 EOF\n2: POSIX ADVISORY WRITE 17 00:2b:257 0 EOF\n", &whole, 0},
		{"of a file with the inode, and of another", "1: OFDLCK ADVISORY READ -1 00:2a:9 0 7\n2: OFDLCK ADVISORY READ -1 00:2a:257 0 7\n", &reader, 1},
		{"other inode", "1: OFDLCK ADVISORY READ -1 00:2a:9 0 7\n2: OFDLCK ADVISORY READ -1 00:2a:9 0 8\n", &reader, 2},
		{"other inodes of two files", "1: OFDLCK ADVISORY READ -1 00:2a:9 0 7\n2: OFDLCK ADVISORY READ -1 00:2a:8 0 7\n", &reader, 0},
		{"nothing known", "1: POSIX ADVISORY WRITE 17 00:2a:257 0 EOF\n", nil, 0},
	} {
		if got := locksOf(test.table, unix.Mkdev(1, 2), ino, test.known); len(got) != test.want {
			t.Errorf("%s: %v, want %d locks", test.name, got, test.want)
		}
	}
}

// LocksOf finds all locks of a file, however many pages they fill. Other processes lock files,
// too, so that one may be left out at times.
func TestLocksOf(t *testing.T) {
	if setlkOFD == unsupported || ForceProcessOwned.Load() {
		t.Skip("one process has one lock on a range then")
	}
	path := filepath.Join(t.TempDir(), "lock")
	const n = 300 // several pages
	for i := range n {
		open(t, path).mustTry(t, unix.F_RDLCK, Range{0, int64(i) + 1}, true)
	}
	st, err := Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	known := &Lock{Range{0, 1}, unix.F_RDLCK, -1, false} // there may be another number in the list, as on Btrfs
	for {
		found := map[Lock]int{}
		for _, l := range LocksOf(st.Dev, st.Ino, known) {
			found[l]++
		}
		if len(found) > n {
			t.Fatalf("%d locks, want %d", len(found), n)
		}
		if len(found) == n {
			return
		}
	}
}

func TestUnion(t *testing.T) {
	a, b := Lock{PID: 1}, Lock{PID: 2}
	for _, test := range []struct{ all, more, want []Lock }{
		{nil, []Lock{a, b}, []Lock{a, b}},
		{[]Lock{a, b}, []Lock{b, a}, []Lock{a, b}},
		{[]Lock{a}, []Lock{a, b, a}, []Lock{a, b, a}},
		{[]Lock{a, a}, []Lock{a}, []Lock{a, a}},
	} {
		if got := union(test.all, test.more); !slices.Equal(got, test.want) {
			t.Errorf("%v and %v: %v, want %v", test.all, test.more, got, test.want)
		}
	}
}
