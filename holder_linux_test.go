package fasteners

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners/internal/locktable"
	"github.com/go-fasteners/fasteners/internal/posix"
	"github.com/go-fasteners/fasteners/internal/tag"
)

// What Holders and the error of a wait say: for each way to hold a lock, and each place to look
// at it from, as far as the kernel can be seen from there.
func TestWhoHolds(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	booted := now.Add(-24 * time.Hour)
	own := os.Getpid()
	const (
		theirs   = 1<<22 - 2 // a process that holds the lock
		child    = 1<<22 - 3 // one that has inherited it
		foreign  = 4711      // what a process is called in another PID namespace
		innocent = foreign   // one that has that number here
	)
	// main is the range of a holder: see tag.Tag.
	main := func(pid, namespace int, taken time.Time) posix.Range {
		seconds := taken.Unix() - time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
		return posix.Range{Start: 0, Len: mainBase + seconds<<32 + int64(pid)<<10 + int64(namespace)}
	}
	ours := tag.New().Namespace()
	others := ours%1000 + 1
	taken := now.Add(-time.Hour)
	ofd := func(r posix.Range) posix.Lock { return posix.Lock{Range: r, Type: unix.F_WRLCK, PID: -1} }
	classic := func(pid int, r posix.Range) posix.Lock { return posix.Lock{Range: r, Type: unix.F_WRLCK, PID: pid} }

	// In the tables, h is a process known by ID, ? an unknown one, and +t says that the time is
	// known. The processes have the names of the constants above.
	type place int
	const (
		here        place = iota // the same PID namespace, and the right to look at the descriptors of others
		noRights                 // as another user; with hidepid, too, but for the command
		foreignProc              // in a PID namespace with the /proc of its parent
		noProc                   // without /proc
		remote                   // on a file system that is not known to be local; the lock is of this machine
		server                   // there, and the kernel has asked a server: the lock may be of any machine
	)
	type row struct {
		name   string
		lock   posix.Lock
		begun  time.Time // when the process theirs or own was started; zero if it is dead
		holds  int       // who has the descriptor
		asked  [6]string // what Holders says, by place
		waited [6]string // what the error of a wait says
	}
	before, after := taken.Add(-time.Minute), taken.Add(time.Minute)
	impossible := booted.Add(-time.Hour)
	for _, r := range []row{
		//                                                       here        noRights    foreignProc noProc      remote      server
		{"other, by tag", ofd(main(theirs, ours, taken)), before, theirs,
			[6]string{"theirs +t", "theirs +t", "theirs +t", "? +t", "theirs +t", "? +t"},
			[6]string{"theirs +t", "theirs +t", "theirs +t", "? +t", "? +t", "? +t"}},
		{"own, by tag: WithFile or another copy", ofd(main(own, ours, taken)), before, own,
			[6]string{"own +t", "own +t", "own +t", "? +t", "own +t", "? +t"},
			[6]string{"own +t", "own +t", "own +t", "? +t", "? +t", "? +t"}},
		{"other, F_SETLK and tag", classic(theirs, main(theirs, ours, taken)), before, theirs,
			[6]string{"theirs +t", "theirs +t", "theirs +t", "? +t", "theirs +t", "? +t"},
			[6]string{"theirs +t", "theirs +t", "theirs +t", "? +t", "? +t", "? +t"}},
		{"other, F_SETLK", classic(theirs, posix.Whole), before, theirs,
			[6]string{"theirs", "theirs", "theirs", "?", "theirs", "?"},
			[6]string{"theirs", "theirs", "theirs", "?", "?", "?"}},
		{"own, F_SETLK", classic(own, posix.Whole), before, own,
			[6]string{"own", "own", "own", "?", "own", "?"},
			[6]string{"own", "own", "own", "?", "?", "?"}},
		{"other, without tag", ofd(posix.Whole), before, theirs,
			[6]string{"theirs", "?", "?", "?", "theirs", "?"},
			[6]string{"?", "?", "?", "?", "?", "?"}},
		{"own, without tag", ofd(posix.Whole), before, own,
			[6]string{"own", "own", "?", "?", "own", "?"},
			[6]string{"?", "?", "?", "?", "?", "?"}},
		{"inherited from a dead process", ofd(main(theirs, ours, taken)), time.Time{}, child,
			[6]string{"child +t", "? +t", "? +t", "? +t", "child +t", "? +t"},
			[6]string{"? +t", "? +t", "? +t", "? +t", "? +t", "? +t"}},
		{"inherited, and the PID is used again", ofd(main(theirs, ours, taken)), after, child,
			[6]string{"child +t", "? +t", "theirs +t", "? +t", "child +t", "? +t"}, // in foreignProc, nothing tells
			[6]string{"? +t", "? +t", "theirs +t", "? +t", "? +t", "? +t"}},
		{"inherited, and the PID is ours now", ofd(main(own, ours, taken)), after, child,
			[6]string{"child +t", "? +t", "own +t", "? +t", "child +t", "? +t"},
			[6]string{"? +t", "? +t", "own +t", "? +t", "? +t", "? +t"}},
		{"of another PID namespace", ofd(main(foreign, others, taken)), before, child,
			[6]string{"child +t", "? +t", "? +t", "? +t", "child +t", "? +t"},
			[6]string{"? +t", "? +t", "? +t", "? +t", "? +t", "? +t"}},
		{"by a clock before the epoch", ofd(main(theirs, ours, time.Unix(1735689600, 0))), before, theirs,
			[6]string{"theirs", "?", "?", "?", "theirs", "?"},
			[6]string{"?", "?", "?", "?", "?", "?"}},
		{"in the future", ofd(main(theirs, ours, now.Add(time.Hour))), before, theirs,
			[6]string{"theirs", "?", "?", "?", "theirs", "?"},
			[6]string{"?", "?", "?", "?", "?", "?"}},
		{"before the machine was started", ofd(main(theirs, ours, impossible)), before, theirs,
			// Of another machine it is not known when that was started.
			[6]string{"theirs", "?", "?", "? +t", "theirs +t", "? +t"},
			[6]string{"?", "?", "?", "? +t", "? +t", "? +t"}},
		{"foreign range, F_SETLK", classic(theirs, posix.Range{Start: 0, Len: 1<<63 - 1}), before, theirs,
			[6]string{"theirs", "theirs", "theirs", "?", "theirs", "?"},
			[6]string{"theirs", "theirs", "theirs", "?", "?", "?"}},
		{"foreign range", ofd(posix.Range{Start: 0, Len: mainBase + 1}), before, theirs,
			[6]string{"theirs", "?", "?", "?", "theirs", "?"},
			[6]string{"?", "?", "?", "?", "?", "?"}},
		{"about to remove the file", ofd(posix.Range{Start: 0, Len: mainBase}), before, theirs,
			[6]string{"theirs", "?", "?", "?", "theirs", "?"},
			[6]string{"?", "?", "?", "?", "?", "?"}},
	} {
		for where := here; where <= server; where++ {
			v := view{local: where < noProc, listed: where != foreignProc && where != noProc, now: now}
			if v.local {
				v.boot = booted
			}
			v.existed = func(pid int, at time.Time) bool {
				switch {
				case pid == innocent:
					return true
				case pid != theirs && pid != own || r.begun.IsZero():
					return false
				}
				return where == foreignProc || at.IsZero() || r.begun.Before(at.Add(time.Second))
			}
			scans := 0
			v.owners = func(locks []posix.Lock) (map[posix.Lock][]int, bool) {
				scans++
				owners := map[posix.Lock][]int{}
				if where != noRights || r.holds == own {
					owners[locks[0]] = []int{r.holds}
				}
				return owners, where != noRights
			}
			say := func(h locktable.Holder) string {
				text := map[int]string{0: "?", own: "own", theirs: "theirs", child: "child", foreign: "innocent"}[h.PID]
				if !h.Since.IsZero() {
					text += " +t"
				}
				return text
			}
			list := []posix.Lock{r.lock}
			if where == foreignProc && r.lock.PID > 0 {
				list[0].PID = innocent // as that /proc calls it
			}
			if where == noProc || where == server {
				list = nil
			}
			got := v.holders(list, &r.lock)
			if len(got) != 1 || say(got[0]) != r.asked[where] || got[0].Unchecked || got[0].Waiting {
				t.Errorf("%s, place %d: holders are %+v, want %q", r.name, where, got, r.asked[where])
			}
			if scans > 1 {
				t.Errorf("%s, place %d: %d looks at all processes", r.name, where, scans)
			}
			h := v.holder(r.lock, v.local)
			if h.Unchecked && !v.existed(h.PID, h.Since) { // as holdersFor does
				h.PID = 0
			}
			if say(h) != r.waited[where] {
				t.Errorf("%s, place %d: the error says %q, want %q", r.name, where, say(h), r.waited[where])
			}
		}
	}
}

// One look at all processes is enough, however many locks have no PID. Of locks that look alike
// each is of another process, as long as there are processes; the others are of unknown ones,
// unless all processes have been seen.
func TestHoldersWithoutName(t *testing.T) {
	whole := posix.Lock{Range: posix.Whole, Type: unix.F_RDLCK, PID: -1}
	other := posix.Lock{Range: posix.Range{Start: 0, Len: 9}, Type: unix.F_RDLCK, PID: -1}
	blocked := whole
	blocked.Blocked = true
	pending := posix.Lock{Range: pendingRange, Type: unix.F_WRLCK, PID: -1}
	classic := whole
	classic.PID = 7
	type owners = map[posix.Lock][]int
	for _, test := range []struct {
		what   string
		list   []posix.Lock
		owners owners
		all    bool
		want   []int // PIDs
		scans  int
	}{
		{"none", nil, nil, true, nil, 0},
		{"named", []posix.Lock{classic}, nil, true, []int{7}, 0},
		{"only pending", []posix.Lock{pending}, nil, true, nil, 0},
		{"one", []posix.Lock{whole}, owners{whole: {7}}, true, []int{7}, 1},
		{"one that nobody has", []posix.Lock{whole}, nil, true, []int{0}, 1},
		{"two kinds", []posix.Lock{whole, other}, owners{whole: {7}, other: {8}}, true, []int{7, 8}, 1},
		{"two processes", []posix.Lock{whole, whole}, owners{whole: {7, 8}}, true, []int{7, 8}, 1},
		{"two of one process", []posix.Lock{whole, whole}, owners{whole: {7}}, true, []int{7}, 1},
		{"two, perhaps of two processes", []posix.Lock{whole, whole}, owners{whole: {7}}, false, []int{7, 0}, 1},
		{"a process that is named already", []posix.Lock{classic, whole}, owners{whole: {7, 8}}, true, []int{7, 8}, 1},
		{"two kinds of one process", []posix.Lock{whole, other}, owners{whole: {7}, other: {7}}, true, []int{7}, 1},
		{"one shared by two processes", []posix.Lock{whole}, owners{whole: {7, 8}}, true, []int{7}, 1},
		{"one that waits", []posix.Lock{whole, blocked, blocked}, owners{whole: {7}}, true, []int{7, 0, 0}, 1},
		{"ten", slices.Repeat([]posix.Lock{whole}, 10), owners{whole: {1, 2, 3, 4, 5, 6, 7, 8, 9}}, false,
			[]int{1, 2, 3, 4, 5, 6, 7, 8, 9, 0}, 1},
	} {
		scans := 0
		v := view{local: true, listed: true, now: time.Now(), owners: func([]posix.Lock) (map[posix.Lock][]int, bool) {
			scans++
			return test.owners, test.all
		}}
		var got []int
		for _, h := range v.holders(test.list, nil) {
			got = append(got, h.PID)
		}
		if !slices.Equal(got, test.want) || scans != test.scans {
			t.Errorf("%s: PIDs %v after %d looks, want %v after %d", test.what, got, scans, test.want, test.scans)
		}
	}
}

// The lock that is known is in the list, or comes in addition, and is never there twice.
func TestKnownHolder(t *testing.T) {
	one := posix.Lock{Range: posix.Range{Start: 0, Len: 9}, Type: unix.F_RDLCK, PID: 7}
	ofd := one
	ofd.PID = -1
	blocked := one
	blocked.Blocked = true
	for _, test := range []struct {
		what   string
		list   []posix.Lock
		one    posix.Lock
		listed bool
		want   int
	}{
		{"no list", nil, one, true, 1},
		{"the same", []posix.Lock{one}, one, true, 1},
		{"of an open file description", []posix.Lock{ofd}, ofd, true, 1},
		{"two of those", []posix.Lock{ofd, ofd}, ofd, true, 2},
		{"another form", []posix.Lock{ofd}, one, true, 2},
		{"only one that waits", []posix.Lock{blocked}, one, true, 1}, // the same process
		{"with other IDs", []posix.Lock{{Range: one.Range, Type: one.Type, PID: 99}}, one, false, 1},
		{"with other IDs, of two readers", []posix.Lock{
			{Range: one.Range, Type: one.Type, PID: 98}, {Range: one.Range, Type: one.Type, PID: 99},
		}, one, false, 2},
		{"with other IDs, and another lock", []posix.Lock{{Range: one.Range, Type: one.Type, PID: 99}, ofd}, one, false, 2},
	} {
		v := view{local: true, listed: test.listed, now: time.Now(),
			owners: func([]posix.Lock) (map[posix.Lock][]int, bool) { return nil, false }}
		got := slices.DeleteFunc(v.holders(test.list, &test.one), func(h locktable.Holder) bool { return h.Waiting })
		if len(got) != test.want || !slices.ContainsFunc(got, func(h locktable.Holder) bool { return h.PID == max(test.one.PID, 0) }) {
			t.Errorf("%s: holders are %+v, want %d", test.what, got, test.want)
		}
		if slices.ContainsFunc(got, func(h locktable.Holder) bool { return h.PID > 10 }) {
			t.Errorf("%s: holders are %+v, and the PIDs are of another PID namespace", test.what, got)
		}
	}
}

// Another copy of this package in the process has a table of its own.
func TestHoldersOfAnotherCopy(t *testing.T) {
	if posix.ForceProcessOwned.Load() {
		t.Skip("locks of one process do not exclude each other")
	}
	path := filepath.Join(t.TempDir(), "lock")
	lock := NewInterProcessLock(path, WithTimeout(time.Millisecond))
	copied := locktable.New(new(system), idleTimeout)
	hold, err := copied.Acquire(t.Context(), &locktable.Request{Path: path, Options: &lock.options.Options}, locktable.Exclusive, false)
	if err != nil {
		t.Fatal(err)
	}
	holders, err := lock.Holders()
	if err != nil || len(holders) != 1 || holders[0].PID != os.Getpid() || holders[0].Since.IsZero() || holders[0].Waiting {
		t.Errorf("holders are %+v, %v", holders, err)
	}
	if err := lock.Acquire(context.Background()); err == nil || !strings.Contains(err.Error(), "held by this process") {
		t.Errorf("error is %v", err)
	}
	if _, err := hold.Release(path); err != nil {
		t.Fatal(err)
	}
}
