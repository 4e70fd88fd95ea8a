package posix

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
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
// The kernel lists the locks page by page, and goes on at the same index each time. If a lock
// in front has come or gone meanwhile, one is listed twice, or not at all. So a list of several
// pages is read again, until that adds nothing, but not forever.
func LocksOf(dev, ino uint64, known *Lock) []Lock {
	var all []Lock
	for range 5 {
		table, _ := os.ReadFile("/proc/locks")
		n := len(all)
		all = union(all, locksOf(string(table), dev, ino, known))
		if len(table) < os.Getpagesize() || len(all) == n {
			break
		}
	}
	return all
}

// union adds those of more to all that are not there, or not as often.
func union(all, more []Lock) []Lock {
	missing := map[Lock]int{}
	for _, l := range all {
		missing[l]--
	}
	for _, l := range more {
		if missing[l]++; missing[l] > 0 {
			all = append(all, l)
		}
	}
	return all
}

func locksOf(table string, dev, ino uint64, known *Lock) []Lock {
	locks := map[string][]Lock{} // by file
	name := fmt.Sprintf("%02x:%02x:%d", unix.Major(dev), unix.Minor(dev), ino)
	var same, sameInode []string
	for line := range strings.Lines(table) {
		l, file, ok := parseLock(line)
		if !ok {
			continue
		}
		locks[file] = append(locks[file], l)
		if known != nil && l == *known && !slices.Contains(same, file) {
			same = append(same, file)
			if strings.HasSuffix(file, fmt.Sprintf(":%d", ino)) {
				sameInode = append(sameInode, file)
			}
		}
	}
	switch {
	case len(locks[name]) > 0:
		return locks[name]
	case len(sameInode) == 1:
		return locks[sameInode[0]]
	case len(same) == 1:
		return locks[same[0]]
	}
	return nil
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

// OwnerOf returns a process that has a descriptor of the file dev and ino through which it
// holds the lock, and that is not in except, or 0 if it finds none. It looks at every
// descriptor of every process, as far as the caller has the rights to: proc_pid_fdinfo(5). It
// asks about a file, which can be on a server that does not answer, only if such a lock is on
// it.
func OwnerOf(l Lock, dev, ino uint64, except []int) int {
	infos, _ := filepath.Glob("/proc/[0-9]*/fdinfo/[0-9]*")
	for _, path := range infos {
		parts := strings.Split(path, "/") // "", proc, PID, fdinfo, N
		pid, _ := strconv.Atoi(parts[2])
		if slices.Contains(except, pid) {
			continue
		}
		info, _ := os.ReadFile(path)
		for line := range strings.Lines(string(info)) {
			rest, isLock := strings.CutPrefix(line, "lock:")
			if own, _, ok := parseLock(rest); !isLock || !ok || own != l {
				continue
			}
			if st, err := Stat(filepath.Join("/proc", parts[2], "fd", parts[4])); err == nil && st.Dev == dev && st.Ino == ino {
				return pid
			}
		}
	}
	return 0
}
