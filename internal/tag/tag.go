// Package tag provides the number that names the holder of a POSIX lock to other processes. It
// is part of the length of the range that the holder locks, which F_GETLK returns to anybody
// who may open the lock file; docs/protocol.md describes it.
package tag

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"
)

// A Tag has, from the highest bit down, 30 bits of seconds since 2025-01-01 UTC, 22 bits of
// process ID, and 10 bits of the PID namespace. The later one of two tags of a process is never
// the smaller one.
type Tag int64

const (
	pidBits, namespaceBits = 22, 10

	epoch      = 1735689600 // 2025-01-01 UTC, in Unix time
	maxSeconds = 1<<30 - 1  // in 2059
)

// Max is larger than any Tag that New returns.
const Max Tag = 1<<62 - 1

// New returns the tag of a lock that this process takes now.
func New() Tag {
	return pack(time.Now(), pid, ownNamespace())
}

var pid = os.Getpid()

func pack(now time.Time, pid int, namespace uint64) Tag {
	seconds := min(max(now.Unix()-epoch, 0), maxSeconds)
	t := Tag(seconds)<<pidBits | Tag(pid&(1<<pidBits-1))
	return min(t<<namespaceBits|Tag(namespace), Max-1)
}

// Time returns when the holder took the lock, in whole seconds by its clock.
func (t Tag) Time() time.Time { return time.Unix(int64(t>>(pidBits+namespaceBits))+epoch, 0) }

// IsPossible reports whether a holder can have taken the lock at that time: not before
// earliest, nor later than now, but for what a second is cut off, and not by a clock that has
// no place in a tag. Otherwise the clock was set meanwhile, or this is no tag, but the range of
// another program; then the PID, too, is of nobody in particular.
func (t Tag) IsPossible(earliest, now time.Time) bool {
	seconds := t.Time().Unix() - epoch
	return 0 < seconds && seconds < maxSeconds &&
		!t.Time().Before(earliest.Add(-time.Second)) &&
		!t.Time().After(now.Add(time.Second))
}

// PID returns the ID that the holder has in its own PID namespace.
func (t Tag) PID() int { return int(t >> namespaceBits & (1<<pidBits - 1)) }

// Namespace returns a number from 1 to 1023 for the PID namespace of the holder, or 0 if the
// holder does not know it. Namespaces with different numbers are different.
func (t Tag) Namespace() int { return int(t & (1<<namespaceBits - 1)) }

// SameNamespace reports whether the holder is in the PID namespace of this process. Two
// namespaces in 1023 are taken for the same one. The answer is false if the system has
// namespaces, and either is not known.
func (t Tag) SameNamespace() bool {
	own := ownNamespace()
	hasNamespaces := runtime.GOOS == "linux" || runtime.GOOS == "android"
	return t.Namespace() == int(own) && (own != 0 || !hasNamespaces)
}

// ownNamespace is asked for once: it does not change while the process runs.
var ownNamespace = sync.OnceValue(func() uint64 {
	link, _ := os.Readlink("/proc/self/ns/pid") // namespaces(7); other systems have none
	var inode uint64
	if n, _ := fmt.Sscanf(link, "pid:[%d]", &inode); n < 1 {
		return 0
	}
	return 1 + inode%(1<<namespaceBits-1)
})
