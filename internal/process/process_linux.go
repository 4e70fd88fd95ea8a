package process

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// longestName is NAME_MAX.
const longestName = 255

func command(pid int) string {
	if !areListed() {
		return ""
	}
	comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	name := strings.TrimSuffix(string(comm), "\n")
	const longest = 15 // what the kernel keeps of it: proc_pid_comm(5)
	if len(name) < longest {
		return name
	}
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	path, _, _ := strings.Cut(string(line), "\x00")
	if base := filepath.Base(path); strings.HasPrefix(base, name) && len(base) <= longestName {
		return base
	}
	return name
}

// A stat is what proc_pid_stat(5) tells.
type stat struct {
	state   byte
	threads int
	start   time.Duration // since boot
}

// parseStat parses a line of proc_pid_stat(5). The name of the program, in parentheses, can
// contain anything.
func parseStat(line []byte) (st stat, ok bool) {
	end := bytes.LastIndexByte(line, ')')
	if end < 0 {
		return st, false
	}
	fields := bytes.Fields(line[end+1:]) // from the third one on
	if len(fields) < 20 || len(fields[0]) != 1 {
		return st, false
	}
	threads, err1 := strconv.Atoi(string(fields[17]))
	ticks, err2 := strconv.ParseInt(string(fields[19]), 10, 64)
	const ticksPerSecond = 100 // sysconf(_SC_CLK_TCK), on every architecture that Go knows
	st = stat{fields[0][0], threads, time.Duration(ticks) * (time.Second / ticksPerSecond)}
	return st, err1 == nil && err2 == nil
}

// readStat returns nothing if another user may not see the process (hidepid, proc(5)).
func readStat(pid int) (stat, bool) {
	if !areListed() {
		return stat{}, false
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, false
	}
	return parseStat(line)
}

// start does not take a zombie for a process, unless others of its threads go on.
func start(pid int) (began time.Time, exists bool) {
	if unix.Kill(pid, 0) == unix.ESRCH {
		return time.Time{}, false
	}
	booted := boot()
	st, ok := readStat(pid)
	switch {
	case !ok || booted.IsZero():
		return time.Time{}, true
	case (st.state == 'Z' || st.state == 'X') && st.threads <= 1:
		return time.Time{}, false
	}
	return booted.Add(st.start), true
}

// boot counts the time that the machine was suspended: so does the start of a process. Both are
// of the time namespace of this process.
func boot() time.Time {
	var up unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &up) != nil {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(up.Nano()))
}

// areListed asks each time: /proc can be mounted anew. NSpid has the IDs of a process from the
// PID namespace of this /proc to its own (proc_pid_status(5)), so there is one if both are the
// same. Without that line, before Linux 4.1, the two namespaces are taken for the same if this
// process has the same ID in both.
func areListed() bool {
	self, err := os.Readlink("/proc/self")
	if err != nil || self != strconv.Itoa(os.Getpid()) {
		return false
	}
	status, _ := os.ReadFile("/proc/self/status")
	_, ids, found := bytes.Cut(status, []byte("\nNSpid:"))
	ids, _, _ = bytes.Cut(ids, []byte("\n"))
	return !found || len(bytes.Fields(ids)) == 1
}
