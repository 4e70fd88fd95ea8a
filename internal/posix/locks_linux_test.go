package posix

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
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
		if got, _ := locksOf(records(test.table), unix.Mkdev(1, 2), ino, test.known); len(got) != test.want {
			t.Errorf("%s: %v, want %d locks", test.name, got, test.want)
		}
	}
}

// What the kernel lists twice on two pages is one lock, and its waiters are there once. Two
// locks are never taken for one if the list has not moved.
func TestJoin(t *testing.T) {
	const (
		w  = "POSIX ADVISORY WRITE 17 01:02:257 0 EOF\n"                  // unique
		d  = "-> OFDLCK ADVISORY WRITE -1 01:02:257 0 EOF\n"              // waits for it
		d2 = "-> OFDLCK ADVISORY READ -1 01:02:257 0 EOF\n"               // so does another one
		o  = "OFDLCK ADVISORY WRITE -1 01:02:258 0 4611686018427387904\n" // unique, of another file
		p  = "POSIX ADVISORY READ 18 01:02:257 100 EOF\n"                 // unique: a process has one
		r  = "OFDLCK ADVISORY READ -1 01:02:257 0 EOF\n"                  // there can be several
		s  = "OFDLCK ADVISORY READ -1 01:02:257 0 4611686018427387904\n"  // of the same kind
		f  = "FLOCK ADVISORY WRITE 19 01:02:257 0 EOF\n"                  // not of our kind
	)
	for _, test := range []struct {
		what  string
		pages []string
		want  string // what the records are, by the letters above
	}{
		{"nothing", nil, ""},
		{"one page", []string{w + d + r + r}, "wd r r"},
		{"one page, other kinds of locks", []string{f + w + f + r}, "w r"},
		{"no repetition", []string{w + d, o + r}, "wd o r"},
		{"a holder and its waiter again", []string{o + w + d, w + d + r}, "o wd r"},
		{"one more waits meanwhile", []string{w + d, w + d + d2}, "wde"},
		{"none waits any more", []string{w + d, w + r}, "w r"},
		{"two again", []string{p + w + d, p + w + d + r}, "p wd r"},
		{"two again, one of them not unique", []string{r + w, r + w}, "r w"},
		{"not next to each other", []string{w + d + r + p, s + w + d}, "r p s wd"},
		{"others have gone between them", []string{w + r, p + w}, "r p w"},
		{"on three pages", []string{w + d, w + d, w + d}, "wd"},
		{"two readers, or one", []string{w + r, r + p}, "w r p"},
		{"two readers, on one page", []string{w + r + r, p}, "w r r p"},
		{"three readers, or two", []string{w + r, r + r + p}, "w r r p"},
		{"two kinds of readers", []string{w + r + s, r + s + p}, "w r s p"},
		{"readers of different ranges", []string{r, s}, "r s"},
		{"a page of other kinds only", []string{w, f, w}, "w"},
	} {
		letters := map[string]string{w: "w", o: "o", p: "p", r: "r", s: "s", d: "d", d2: "e"}
		var pages []string
		for _, page := range test.pages {
			var lines strings.Builder
			for line := range strings.Lines(page) {
				lines.WriteString("1: " + line)
			}
			pages = append(pages, lines.String())
		}
		var got []string
		for _, rec := range join(pages) {
			text := ""
			for _, l := range rec.locks {
				for line, letter := range letters {
					if same, file, _ := parseLock("1: " + line); same == l && file == rec.file {
						text += letter
					}
				}
			}
			got = append(got, text)
		}
		if got := strings.Join(got, " "); got != test.want {
			t.Errorf("%s: records are %q, want %q", test.what, got, test.want)
		}
	}
}

// Each read(2) is a page of the kernel, unless a lock has more waiters than fit.
func TestReadPages(t *testing.T) {
	for _, test := range []struct {
		pages []string
		want  int
		cut   bool
	}{
		{nil, 0, false},
		{[]string{"abc"}, 1, false},
		{[]string{"abc", "de"}, 2, false},
		{[]string{"abc", "defg"}, 0, true},
		{[]string{"abc", "defghi"}, 0, true},
	} {
		pages := test.pages
		r := readerFunc(func(b []byte) (int, error) {
			if len(pages) == 0 {
				return 0, io.EOF
			}
			n := copy(b, pages[0])
			if pages[0] = pages[0][n:]; pages[0] == "" {
				pages = pages[1:]
			}
			return n, nil
		})
		if got, cut := readPages(r, 4); len(got) != test.want || cut != test.cut {
			t.Errorf("%q: %q, %t", test.pages, got, cut)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// LocksOf never has a lock twice, and finds all locks of a file, however many pages they fill and
// whatever comes and goes in front of them. At a moment when too much does, one may be left out.
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
	complete := func() bool {
		// The known one is for file systems that have other numbers in the list.
		locks, _ := LocksOf(st.Dev, st.Ino, &Lock{Range{0, 1}, unix.F_RDLCK, -1, false})
		found := map[Lock]bool{}
		for _, l := range locks {
			if found[l] {
				t.Fatalf("%v is there twice", l)
			}
			found[l] = true
		}
		return len(found) == n
	}
	for !complete() { // locks of other tests come and go
	}
	done := make(chan struct{})
	var churn sync.WaitGroup
	for i := range 4 {
		other := open(t, filepath.Join(t.TempDir(), strconv.Itoa(i)))
		churn.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					_, _ = other.TryLock(unix.F_WRLCK, Whole)
					_ = other.Unlock(Whole)
				}
			}
		})
	}
	for range 50 {
		complete()
	}
	close(done)
	churn.Wait()
	for !complete() { // as above
	}
}

// A process that shares a descriptor with this one is named rather than this one.
func TestOwners(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		t.Skip("locks of open file descriptions: ", err)
	}
	lock := Lock{Whole, unix.F_WRLCK, -1, false}
	st, err := Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	locks, name := LocksOf(st.Dev, st.Ino, &lock)
	if !slices.Equal(locks, []Lock{lock}) {
		t.Fatalf("locks are %v", locks)
	}
	isFile := func(path string) bool {
		got, err := Stat(path)
		return err == nil && got == st
	}
	check := func(want int) {
		t.Helper()
		for _, name := range []string{name, ""} {
			if owners, _ := Owners(locks, name, isFile); !slices.Equal(owners[lock], []int{want}) {
				t.Errorf("owners are %v, want %d", owners, want)
			}
		}
		if owners, _ := Owners(locks, "00:00:0", isFile); len(owners) > 0 {
			t.Errorf("owners of another file are %v", owners)
		}
	}
	check(os.Getpid())
	cmd := exec.Command("sleep", "60")
	cmd.ExtraFiles = []*os.File{f}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	check(cmd.Process.Pid)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	check(os.Getpid())
}
