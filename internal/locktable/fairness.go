package locktable

import "time"

// What keeps the goroutines of one process from starving other processes: this comment is the reference;
// docs/fairness.md tells users what to expect.
//
// A process whose goroutines queue for a lock hands it on among them for a time slice, without a system
// call, and then unlocks the file. It yields before it locks the file again, long enough for a process that
// waits in the kernel to get the lock. Without a yield the waiter starves:
//
//	this process                    another process
//	                                waits in the kernel
//	unlock: the kernel wakes it     becomes runnable
//	lock again, 1 µs later
//	…                               runs, 30 µs later; finds the file locked; waits again
//
// A process that has noticed no other one for 20 ms takes itself to be alone, and its slices get longer. It
// is that long because the scheduler, or the host of a virtual machine, can keep a waiter from running for
// 10 ms and more.
//
// Readers overlap, and could hold the lock forever: see join. For writers that wait for readers of other
// processes see File.LockPending and recheck.go.
const (
	minSlice      = time.Millisecond
	maxSlice      = 10 * time.Millisecond
	yieldTime     = 200 * time.Microsecond
	maxIdleYields = 16
)

// beginSliceLocked begins a time slice, unless one has begun. For a writer it is called when another
// goroutine of the process queues, for a reader when it locks the file: at that moment no writer of another
// process is waiting for readers to leave.
func (e *entry) beginSliceLocked() {
	if e.sliceEnd.IsZero() {
		e.sliceEnd = time.Now().Add(e.slice)
	}
}

// yield gives other processes the time to lock the file. The caller leads.
func (e *entry) yield() {
	e.mustYield = false
	start := time.Now()
	e.table.system.Sleep(yieldTime)
	// After a longer sleep, another process may have locked and unlocked the file without being noticed.
	if time.Since(start) < minSlice {
		if e.idleYields++; e.idleYields > maxIdleYields {
			e.slice = min(2*e.slice, e.table.maxSlice)
		}
	}
}
