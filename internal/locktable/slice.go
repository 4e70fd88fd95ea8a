package locktable

import "time"

// A slice is the time for which a process may keep a lock for its own goroutines, and what it
// owes to other processes afterwards. This comment is the reference; docs/fairness.md tells
// users what to expect.
//
// A process whose goroutines queue for a lock hands it on among them for a time slice, without
// a system call, and then unlocks the file. It yields before it locks the file again, long
// enough for a process that waits in the kernel to get the lock. Without a yield the waiter
// starves:
//
//	this process                    another process
//	                                waits in the kernel
//	unlock: the kernel wakes it     becomes runnable
//	lock again, 1 µs later
//	…                               runs, 30 µs later; finds the file locked; waits again
//
// Readers overlap, and could hold the lock forever: see join. For writers that wait for readers
// of other processes see File.LockPending and recheck.go.
type slice struct {
	end       time.Time // zero if none has begun; Table.mu protects it
	mustYield bool      // before locking the file; this belongs to the leader, or to Table.mu
}

// Eight goroutines that compete with nobody else (BenchmarkGoroutines) got the lock 1.2 times
// as often with slices of 4 ms as with slices of 1 ms, and 1.3 times with slices of 10 ms; but
// for so long a waiter of another process may have to wait.
const (
	sliceLength = 4 * time.Millisecond
	yieldTime   = 200 * time.Microsecond
)

// beginLocked begins a time slice, unless one has begun. For a writer it is called when another
// goroutine of the process queues, for a reader when it locks the file: at that moment no
// writer of another process is waiting for readers to leave.
func (s *slice) beginLocked(length time.Duration) {
	if s.end.IsZero() {
		s.renewLocked(length)
	}
}

// renewLocked begins another time slice, for readers of which one has just checked for such a
// writer.
func (s *slice) renewLocked(length time.Duration) { s.end = time.Now().Add(length) }

// lastsLocked reports whether a slice has begun and is not over.
func (s *slice) lastsLocked() bool { return time.Now().Before(s.end) }

// endLocked ends the slice. The next leader has to yield if goroutines of this process still
// want the lock.
func (s *slice) endLocked(mustYield bool) { s.end, s.mustYield = time.Time{}, mustYield }

// yield gives other processes the time to lock the file. The caller leads.
func (s *slice) yield(system System) {
	s.mustYield = false
	system.Sleep(yieldTime)
}
