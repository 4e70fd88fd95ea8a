package posix

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// LocksOf returns the locks on the file of which stat(2) returns dev and ino, also those that
// are waited for, as proc_locks(5) shows them. If known is not nil, it is one of the locks.
//
// A file system can have another device number there than for stat(2), as Btrfs and overlayfs
// have, and another inode number, too. Then known tells which file it is, if only one file has
// such a lock, or only one with that inode number. Otherwise LocksOf returns nil.
//
// The kernel lists the locks page by page: see join. So a list of several pages is read again,
// until two readings have the same locks on the file, but not forever.
//
// The name is what the file is called there, or empty if that is not known.
func LocksOf(dev, ino uint64, known *Lock) (locks []Lock, name string) {
	var text string
	for tries := range 5 {
		pages := readLocks()
		lastText, lastLocks := text, locks
		text = strings.Join(pages, "")
		locks, name = locksOf(join(pages), dev, ino, known)
		if len(pages) <= 1 || text == lastText || tries > 0 && slices.Equal(locks, lastLocks) {
			break
		}
	}
	return locks, name
}

// readLocks reads /proc/locks. Each page is what the kernel lists at one moment.
func readLocks() (pages []string) {
	for size := 64 << 10; ; size *= 4 { // far larger than a page of the kernel
		f, err := os.Open("/proc/locks")
		if err != nil {
			return nil
		}
		pages, cut := readPages(f, size)
		_ = f.Close()
		if !cut {
			return pages
		}
	}
}

// readPages reports whether size is too small for a page: a single lock can have any number of
// waiters. The rest of the page would come together with the next one.
func readPages(r io.Reader, size int) (pages []string, cut bool) {
	b := make([]byte, size)
	for {
		n, err := r.Read(b)
		if n == size {
			return nil, true
		}
		if n > 0 {
			pages = append(pages, string(b[:n]))
		}
		if err != nil || n == 0 {
			return pages, false
		}
	}
}

// A record of proc_locks(5) is a lock, with those that wait for it. The kernel never divides it
// between two pages.
type record struct {
	file  string
	locks []Lock // the first one is held
}

// records parses a page.
func records(page string) (all []record) {
	for line := range strings.Lines(page) {
		l, file, ok := parseLock(line)
		switch {
		case !ok:
		case !l.Blocked:
			all = append(all, record{file, []Lock{l}})
		case len(all) > 0 && all[len(all)-1].file == file:
			last := &all[len(all)-1]
			last.locks = append(last.locks, l)
		}
	}
	return all
}

// isLike reports whether the two may be one lock, listed twice.
func (r record) isLike(other record) bool {
	return r.file == other.file && r.locks[0] == other.locks[0]
}

// join joins the pages of a list. After each page the kernel goes on at the same index, even if
// locks have been added in front meanwhile: then it lists as many again, with those that wait for
// them. If locks have gone, some are missing.
//
//	page 1    1: a, 2: b, 3: c
//	          x is added in front
//	page 2    4: c, 5: d
//
// Of what may be listed twice, the later one counts. That may also be two locks: those of two
// readers with one range, of processes that the list does not tell apart.
func join(pages []string) (all []record) {
	for _, page := range pages {
		next := records(page)
		isAgain := func(r record) bool { return slices.ContainsFunc(next, r.isLike) }
		all = append(slices.DeleteFunc(all, isAgain), next...)
	}
	return all
}

func locksOf(list []record, dev, ino uint64, known *Lock) ([]Lock, string) {
	locks := map[string][]Lock{} // by file
	name := fmt.Sprintf("%02x:%02x:%d", unix.Major(dev), unix.Minor(dev), ino)
	var same, sameInode []string
	for _, r := range list {
		locks[r.file] = append(locks[r.file], r.locks...)
		if known != nil && slices.Contains(r.locks, *known) && !slices.Contains(same, r.file) {
			same = append(same, r.file)
			if strings.HasSuffix(r.file, fmt.Sprintf(":%d", ino)) {
				sameInode = append(sameInode, r.file)
			}
		}
	}
	switch {
	case len(locks[name]) > 0:
	case len(sameInode) == 1:
		name = sameInode[0]
	case len(same) == 1:
		name = same[0]
	default:
		return nil, ""
	}
	return locks[name], name
}

// parseLock parses a line of proc_locks(5), or what stands behind "lock:" in proc_pid_fdinfo(5):
//
//	3: OFDLCK ADVISORY  WRITE -1 fd:00:1234 0 EOF
//	3: -> POSIX  ADVISORY  READ 4711 fd:00:1234 0 EOF
func parseLock(line string) (l Lock, file string, ok bool) {
	fields := strings.Fields(line)
	if len(fields) > 1 && fields[1] == "->" {
		l.Blocked = true
		fields = append(fields[:1], fields[2:]...)
	}
	if len(fields) != 8 || fields[1] != "OFDLCK" && fields[1] != "POSIX" {
		return l, "", false
	}
	l.Type = unix.F_RDLCK
	if fields[3] == "WRITE" {
		l.Type = unix.F_WRLCK
	}
	l.PID, _ = strconv.Atoi(fields[4])
	var err error
	if l.Start, err = strconv.ParseInt(fields[6], 10, 64); err != nil {
		return l, "", false
	}
	if fields[7] != "EOF" {
		end, err := strconv.ParseInt(fields[7], 10, 64)
		if err != nil || end < l.Start || end == math.MaxInt64 {
			return l, "", false
		}
		l.Len = end - l.Start + 1
	}
	return l, fields[5], true
}

// Owners returns, for each of the locks on a file, the processes that have a descriptor through
// which they hold it. It reports whether it has seen all processes of the machine, or found as
// many for each lock as there are locks like it. It looks once at the descriptors of every
// process, as far as the caller has the rights to (proc_pid_fdinfo(5)).
//
// The name of the file is the one of LocksOf, or empty, which is any. Then isFile has to tell
// whether a path names it. It is called, unless it is nil, only for descriptors with such a
// lock: others can be of a server that does not answer.
func Owners(locks []Lock, name string, isFile func(path string) bool) (owners map[Lock][]int, all bool) {
	owners = map[Lock][]int{}
	missing := map[Lock]int{}
	for _, l := range locks {
		missing[l]++
	}
	sawInit := false // it is not there for those who see only their own processes (hidepid, proc(5))
	all = true
	for _, pid := range processes() {
		if len(missing) == 0 {
			return owners, true
		}
		readable := eachLock(pid, func(l Lock, file string, fd string) {
			if missing[l] == 0 || name != "" && file != name || slices.Contains(owners[l], pid) ||
				isFile != nil && !isFile(fd) {
				return
			}
			owners[l] = append(owners[l], pid)
			if missing[l]--; missing[l] == 0 {
				delete(missing, l)
			}
		})
		all = all && readable
		sawInit = sawInit || pid == 1
	}
	return owners, all && sawInit
}

// processes returns the IDs in /proc, and the own one last: this process may have inherited a
// descriptor without knowing of it.
func processes() (pids []int) {
	f, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer f.Close()
	names, _ := f.Readdirnames(-1)
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	own := os.Getpid()
	return append(slices.DeleteFunc(pids, func(pid int) bool { return pid == own }), own)
}

// eachLock calls fn for each lock that the process holds through a descriptor, with the name of
// the file in proc_locks(5), and with a path of the descriptor. It reports whether it could look
// at the process, or that is not there any more.
func eachLock(pid int, fn func(l Lock, file, fd string)) bool {
	dir := fmt.Sprintf("/proc/%d/", pid)
	f, err := os.Open(dir + "fdinfo")
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return errors.Is(err, unix.ESRCH)
	}
	for _, name := range names {
		info, _ := os.ReadFile(dir + "fdinfo/" + name)
		_, list, _ := bytes.Cut(info, []byte("\nlock:"))
		for line := range bytes.SplitSeq(list, []byte("\nlock:")) {
			line, _, _ := bytes.Cut(line, []byte("\n"))
			if l, file, ok := parseLock(string(line)); ok {
				fn(l, file, dir+"fd/"+name)
			}
		}
	}
	return true
}
