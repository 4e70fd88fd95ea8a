package posix

import (
	"math"
	"os"
	"path"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Each goroutine in Wait takes a thread, and a program that cannot make another thread when it
// needs one is ended by Go's runtime. So the waits leave most of the threads that the process
// may have to others, and the goroutines that get none poll.
const (
	// MaxWaits is how many goroutines of the process can be in Wait at a time, if it may have
	// any number of threads.
	MaxWaits = 256

	// fewWaits is how many can be in Wait without a look at the limits: the runtime itself makes
	// more threads than that. Programs that use a few lock files never look.
	fewWaits = 4

	// keptThreads is how many threads the waits leave to the runtime, which never ends a thread
	// by itself. Those of more waits at a time end with their wait: making and ending a thread
	// costs some 40 µs.
	keptThreads = 16
)

// mayTakeThread reports whether the nth of the present waits may have a thread.
func mayTakeThread(n int32) bool { return n <= fewWaits || n <= threads.waits(n) }

// threads is how many waits there may be. It is found out again from time to time, since other
// users of the limits come and go, and not for each wait, since that takes some 100 µs.
var threads threadLimits

type threadLimits struct {
	mu    sync.Mutex
	max   int32
	until time.Time
	goMax int
}

const limitsLast = time.Second

func (l *threadLimits) waits(n int32) int32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.After(l.until) {
		if l.goMax == 0 {
			l.goMax = maxGoThreads()
		}
		l.max = maxWaits(n-1, append(cgroupLimits("/proc/self/cgroup", "/sys/fs/cgroup"),
			threadLimit{l.goMax, goThreads()}, threadLimit{maxProcesses(), goThreads()}))
		l.until = now.Add(limitsLast)
	}
	return l.max
}

// A threadLimit is how many threads there may be, and how many are known to be. Some of these
// are in Wait.
type threadLimit struct{ max, used int }

// maxWaits returns how many waits there may be, where there are some: an eighth of each limit,
// since processes share some of the limits and may use this package, too, but no more than leaves
// as many threads free as it takes.
func maxWaits(present int32, limits []threadLimit) int32 {
	n := MaxWaits
	for _, l := range limits {
		n = min(n, l.max/8, int(present)+max(0, l.max-l.used)/2)
	}
	return int32(max(n, fewWaits))
}

// maxGoThreads returns the limit of debug.SetMaxThreads, which tells it only by changing it. So
// it is called once. If the program sets another limit in the meantime, that stays.
func maxGoThreads() int {
	const none = math.MaxInt32 - 0xfa57 // a number that nobody else sets, above any number of threads
	expected, limit := none, debug.SetMaxThreads(none)
	for {
		found := debug.SetMaxThreads(limit)
		if found == expected {
			return limit
		}
		expected, limit = limit, found
	}
}

// goThreads returns how many threads the runtime has.
func goThreads() int {
	n, _ := runtime.ThreadCreateProfile(nil)
	return n
}

// maxProcesses returns how many threads all processes of the user may have (getrlimit(2)).
func maxProcesses() int {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NPROC, &l) != nil || l.Cur > math.MaxInt32 {
		return math.MaxInt32
	}
	return int(l.Cur)
}

// cgroupLimits returns the limits of the process's group, and of those that this is in, as far
// as they are visible (cgroups(7)). In a container the path of the group may be that outside of
// it; then the limits at root, which there always are, are those of the container.
func cgroupLimits(membership, root string) (limits []threadLimit) {
	table, _ := os.ReadFile(membership)
	for line := range strings.Lines(string(table)) {
		_, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, group, _ := strings.Cut(rest, ":")
		dir := root
		switch controllers {
		case "": // version 2
		case "pids":
			dir = path.Join(root, "pids")
		default:
			continue
		}
		if strings.HasPrefix(group, "/..") { // it is not in the namespace of the process
			group = "/"
		}
		for group = path.Join("/", group); ; group = path.Dir(group) {
			if l, ok := readLimit(path.Join(dir, group)); ok {
				limits = append(limits, l)
			}
			if group == "/" {
				break
			}
		}
	}
	return limits
}

func readLimit(dir string) (l threadLimit, ok bool) {
	limit, err := readNumber(path.Join(dir, "pids.max"))
	if err != nil { // there is no limit, which is called max, or no such file
		return l, false
	}
	used, err := readNumber(path.Join(dir, "pids.current"))
	return threadLimit{limit, used}, err == nil
}

func readNumber(name string) (int, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}
