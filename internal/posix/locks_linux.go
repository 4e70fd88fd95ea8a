package posix

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// LocksOf returns the locks on the file of which stat(2) returns dev and ino, also those that are waited
// for, as proc_locks(5) shows them. If known is not nil, it is one of the locks.
//
// A file system can have another device number there than for stat(2), as Btrfs and overlayfs have. Then
// known tells which file it is: by its range alone if isUnique, or else by its range and the inode number.
func LocksOf(dev, ino uint64, known *Lock, isUnique bool) []Lock {
	table := readLocks()
	locks := map[string][]Lock{} // by file
	name := fmt.Sprintf("%02x:%02x:%d", unix.Major(dev), unix.Minor(dev), ino)
	other := name
	for line := range strings.Lines(string(table)) {
		l, file, ok := parseLock(line)
		if !ok {
			continue
		}
		locks[file] = append(locks[file], l)
		if known != nil && l.same(known) && (isUnique || strings.HasSuffix(file, fmt.Sprintf(":%d", ino))) {
			other = file
		}
	}
	if len(locks[name]) > 0 {
		return locks[name]
	}
	return locks[other]
}

// readLocks reads proc_locks(5). The kernel lists as many locks for one read(2) as fit on a page, and goes on
// at the same index for the next one: if a lock has been added at the front meanwhile, the last one comes
// again, and if one was removed, one is left out. So a read that has not filled a page is the last one.
func readLocks() []byte {
	f, err := os.Open("/proc/locks")
	if err != nil {
		return nil
	}
	defer f.Close()
	const longestLine = 256
	page := make([]byte, os.Getpagesize())
	var table []byte
	for {
		n, err := f.Read(page)
		table = append(table, page[:n]...)
		if err != nil || n < len(page)-longestLine {
			return table
		}
	}
}

func (l *Lock) same(m *Lock) bool {
	return l.Range == m.Range && l.Type == m.Type && l.Blocked == m.Blocked
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

// OwnerOf returns a process that has a descriptor of the file dev and ino through which it holds the lock,
// or 0 if it finds none. It looks at every descriptor of every process, as far as the caller has the rights
// to: proc_pid_fdinfo(5).
func OwnerOf(l Lock, dev, ino uint64) (pid int) {
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/[0-9]*")
	for _, fd := range fds {
		if st, err := Stat(fd); err != nil || st.Dev != dev || st.Ino != ino {
			continue
		}
		parts := strings.Split(fd, "/") // "", proc, PID, fd, N
		info, _ := os.ReadFile(filepath.Join("/proc", parts[2], "fdinfo", parts[4]))
		for line := range strings.Lines(string(info)) {
			rest, isLock := strings.CutPrefix(line, "lock:")
			if own, _, ok := parseLock(rest); isLock && ok && own.same(&l) {
				pid, _ = strconv.Atoi(parts[2])
				return pid
			}
		}
	}
	return 0
}
