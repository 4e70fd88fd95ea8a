package lockertest

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
)

// In memory a moment is shorter.
func init() { brief = 2 * time.Millisecond }

// A correct lock passes, whatever it has.
func TestCorrectLocks(t *testing.T) {
	t.Parallel()
	all := newMemory("")
	plain := Locks{
		NewLock: func(t *testing.T, name string) fasteners.Locker {
			return struct{ fasteners.Locker }{all.NewLock(t, name)}
		},
		NewReaderWriterLock: func(t *testing.T, name string) fasteners.ReaderWriterLocker {
			return struct{ fasteners.ReaderWriterLocker }{all.NewReaderWriterLock(t, name)}
		},
		Lose: all.Lose,
	}
	separate := newMemory("exclusion only within a kind of lock")
	separate.Separate = true
	for name, locks := range map[string]Locks{
		"all":           all,
		"plain":         plain,
		"separate":      separate,
		"exclusive":     {NewLock: all.NewLock},
		"reader-writer": {NewReaderWriterLock: all.NewReaderWriterLock, Lose: all.Lose, Tokens: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			Test(t, locks)
		})
	}
}

// brokenLocks are bugs, the test that must find each, and what it must say.
var brokenLocks = []struct{ bug, test, message string }{
	{"no exclusion", "Exclusion/Exclusive/OneLock", "holds overlap of 160"},
	{"one lock value may be acquired again", "Exclusion/Exclusive/OneLock", "holds overlap of 160"},
	{"exclusion only within a lock value", "Exclusion/Exclusive/SeveralLocks", "holds overlap of 160"},
	{"readers do not exclude a writer", "Exclusion/ReadersAndWriters/OneLock", "holds overlap of 160"},
	{"readers do not exclude a writer", "Exclusion/ReadersAndWriters/SeveralLocks", "holds overlap of 160"},
	{"exclusion only within a kind of lock", "Exclusion/Both/SeveralLocks", "holds overlap of 160"},
	{"exclusion only within a kind of lock", "Exclusion/OtherKind/Hold", "though the lock is held"},
	{"readers exclude each other", "Sharing/HoldRead", "nobody else holds has not ended"},
	{"readers do not exclude a writer", "Sharing/HoldRead", "though the lock is held"},
	{"done context is ignored", "Context/Done/Acquire", "returned nil, want an error that wraps"},
	{"error without a path", "Context/Done/Hold", "is not an *fs.PathError"},
	{"error with an empty path", "Context/Done/Acquire", `Op "acquire" and Path ""`},
	{"error without the cause", "Context/Done/Hold", `does not wrap "cause of the test"`},
	{"deadline with a cause is no timeout", "Context/Done/HoldRead", "os.IsTimeout of the error of acquire is false"},
	{"cancellation looks like a timeout", "Context/Done/Acquire", "os.IsTimeout of the error of acquire is true"},
	{"canceled waiter goes on waiting", "Context/Waiting/Hold", "a context that is done has not ended"},
	{"error without the cause", "Context/Waiting/Hold", `does not wrap "cause of the test"`},
	{"error with an empty path", "Context/Waiting/HoldWrite", `Op "acquire" and Path ""`},
	{"deadline with a cause is no timeout", "Context/Waiting/Acquire", "os.IsTimeout of the error of acquire is false"},
	{"try waits", "Try/Acquire", "TryAcquire has not ended"},
	{"try succeeds always", "Try/AcquireReadLock", "a lock that somebody else holds returned true"},
	{"readers exclude each other", "Try/AcquireReadLock", "a lock that a reader holds returned false"},
	{"try ignores a done context", "Try/AcquireWriteLock", "returned nil, want an error that wraps"},
	{"error with an empty path", "Try/Acquire", `Op "acquire" and Path ""`},
	{"waiter that gave up gets the lock", "Context/Waiting/Acquire", "behind a waiter that gave up has not ended"},
	{"waiter that gives up wakes the next", "Context/Waiting/Hold", "returned nil, though the lock is held"},
	{"waiter that gives up takes along those behind it", "Context/Waiting/AcquireWriteLock", "gave up has not ended"},
	{"waiter that gives up takes along those of its lock value", "Context/Waiting/HoldRead", "context canceled"},
	{"waiter that gives up ends the contexts of holders", "Context/Waiting/HoldWrite", "the context of the holder is done"},
	{"readers behind a writer that gave up are not woken", "Context/WriterGivesUp/AcquireReadLock", "behind a writer that gave up has not ended"},
	{"readers behind a writer that gave up are not woken", "Context/Waiting/AcquireWriteLock", "behind a writer that gave up has not ended"},
	{"writer that gave up keeps new readers out", "Context/WriterGivesUp/HoldRead", "after a writer gave up has not ended"},
	{"writer that gives up ends other holds of its lock value", "Context/WriterGivesUp/HoldRead", "returned nil, though the lock is held"},
	{"writer that gives up takes along other writers", "Context/WriterGivesUp/AcquireReadLock", "though its context is not done"},
	{"waiter that gives up ends the contexts of holders", "Context/WriterGivesUp/HoldRead", "the context of a reader is done"},
	{"grant that meets a cancellation is forgotten", "Context/CancelMeetsGrant/Hold", "cancellation met the grant has not ended"},
	{"grant that meets a cancellation wakes nobody", "Context/CancelMeetsGrant/Acquire", "cancellation met the grant has not ended"},
	{"grant that meets a cancellation wakes nobody", "Context/CancelMeetsGrant/AcquireReadLock", "cancellation met the grant has not ended"},
	{"grant that meets a cancellation is handed on and returned", "Context/CancelMeetsGrant/Acquire", "holds overlap of 2"},
	{"grant that meets a cancellation is handed on and returned", "Context/CancelMeetsGrant/Hold", "holds overlap of 2"},
	{"grant that meets a cancellation is handed on and returned", "Context/CancelMeetsGrant/HoldRead", "holds overlap of 2"},
	{"grant that meets a cancellation is handed on and returned", "Context/CancelMeetsGrant/AcquireWriteLock", "holds overlap of 2"},
	{"refused try releases the lock", "Context/FailedAcquire/Acquire", "after a try that was refused: Hold returned nil"},
	{"refused try wakes the next", "Context/FailedAcquire/AcquireWriteLock", "after acquires that failed: HoldWrite returned nil"},
	{"done context releases the lock", "Context/FailedAcquire/HoldRead", "with a context that was done: HoldWrite returned nil"},
	{"waiter that gives up wakes the next", "Context/FailedAcquire/AcquireReadLock", "though the lock is held"},
	{"waiter that gives up ends the contexts of holders", "Context/FailedAcquire/Acquire", "the context of the hold is done"},
	{"waiter that gives up ends all holds of its process", "Context/FailedAcquire/HoldWrite", "returned nil"},
	{"writer that gives up ends other holds of its lock value", "Context/FailedAcquire/Hold", "returned nil"},
	{"end of the context releases the lock", "Context/DoneWhileHeld/Acquire", "though the lock is held"},
	{"values of the context are lost", "Context/DoneWhileHeld/HoldRead", "acquired with has ended, has not ended"},
	{"error without a path", "Release/Fails/HoldWrite", "is not an *fs.PathError"},
	{"error with an empty path", "Release/Fails/Acquire", `Op "release" and Path ""`},
	{"release without a hold succeeds", "Release/Fails/Acquire", "want an error that wraps [lock is not acquired]"},
	{"release without a hold ends that of another", "Release/Fails/AcquireReadLock", "though the lock is held"},
	{"second release ends the next hold", "Release/Fails/Hold", "after a second release: Hold returned nil"},
	{"release without a hold wakes the next", "Release/Fails/AcquireWriteLock", "after releases that failed: "},
	{"release without a hold ends the contexts of holders", "Release/Fails/HoldRead", "the context of the hold is done"},
	{"release without a hold ends those of other locks", "Release/Fails/HoldRead", "though the lock is held"},
	{"release of a lost hold ends the next", "Release/Fails/AcquireReadLock", "after the release of a lost lock: "},
	{"release of a lost hold wakes the next", "Release/Fails/Hold", "after releases that failed: "},
	{"long names are cut", "Names/Hold", "nobody else holds has not ended"},
	{"names are cut at slashes", "Names/HoldWrite", "nobody else holds has not ended"},
	{"longer names exclude", "Names/HoldWrite", "nobody else holds has not ended"},
	{"canceled wait cancels those of longer names", "Names/Hold", "though its context is not done"},
	{"release wakes those of longer names", "Names/HoldRead", "HoldWrite returned nil, though the lock is held"},
	{"release ends the contexts of longer names", "Names/HoldRead", "the context of the hold is done"},
	{"release without a hold ends those of longer names", "Names/HoldWrite", "after releases that failed: "},
	{"second release ends the next hold", "Release/OtherHold/HoldWrite", "though the lock is held"},
	{"release ends all holds of a lock value", "Release/OtherHold/HoldRead", "though the lock is held"},
	{"context goes on after the release", "Release/EndsHold/Hold", "a hold that was released has not ended"},
	{"release takes the oldest hold", "Release/SparesHold/HoldRead", "the context of the hold is done"},
	{"release takes the newest hold", "Release/SparesHold/HoldRead", "the context of the hold is done"},
	{"context goes on after the release", "Hold/HoldRead", "a hold that was released has not ended"},
	{"values of the context are lost", "Hold/Hold", "does not have the values"},
	{"values of the context are lost", "Hold/HoldWrite", "does not have the deadline"},
	{"release looks like a loss", "Hold/HoldRead", "the cause of the end of the context is"},
	{"values of the context are lost", "Function/AcquireReadLock", "not derived from"},
	{"no exclusion", "Function/Acquire", "though the lock is held"},
	{"last come first served", "Fairness/Order/Acquire", "got the lock in the order"},
	{"last come first served", "Fairness/OrderOfSeveralLocks/Hold", "got the lock in the order"},
	{"readers pass a waiting writer", "Fairness/WriterAmongReaders/HoldRead", "that a writer has waited"},
	{"context does not tell of a loss", "Loss/Told/Hold", "of a lost hold has not ended"},
	{"cause is not that of a loss", "Loss/Told/HoldRead", "cause context canceled"},
	{"release does not tell of a loss", "Loss/Told/Acquire", "want an error that wraps [lock was lost]"},
	{"release of a lost hold ends the next", "Loss/Told/HoldRead", "though the lock is held"},
	{"release of a lost hold ends the next", "Loss/SameLock/Hold", "though the lock is held"},
	{"release takes the newest hold", "Loss/SameLockInTurn/Acquire", "want an error that wraps [lock was lost]"},
	{"release takes the newest hold", "Loss/SameLockInTurn/AcquireWriteLock", "want an error that wraps [lock was lost]"},
	{"release does not tell of a loss", "Loss/Function/Acquire", "want an error that wraps [lock was lost]"},
	{"tokens fall", "Tokens/Locks/InTurn", "not greater than an earlier one"},
	{"tokens of each lock value by itself", "Tokens/Locks/SeveralLocks", "not greater than an earlier one"},
	{"tokens fall", "Tokens/Locks/OneLock", "not greater than an earlier one"},
	{"no token", "Tokens/Function/Acquire", "has no token"},
	{"token stays after a loss", "Tokens/AfterLoss/HoldWrite", "and after a loss 1 (true)"},
}

// brokenVar makes the test binary test broken locks, which fails.
const brokenVar = "LOCKERTEST_TEST_BROKEN"

// Each bug is found by the test that is meant to find it. The tests run in another process, which
// fails, and all at the same time. Those that find nothing can have had too little time on a
// machine with other things to do, and are given more.
func TestBrokenLocks(t *testing.T) {
	if value := os.Getenv(brokenVar); value != "" {
		limit, err := time.ParseDuration(value)
		must(t, err)
		testBrokenLocks(t, limit)
		return
	}
	t.Parallel()
	left := make([]int, len(brokenLocks))
	for i := range left {
		left[i] = i
	}
	for limit := time.Second; len(left) > 0; limit *= 4 {
		var tests []string
		for _, i := range left {
			tests = append(tests, "^"+strings.ReplaceAll(brokenTest(i), "/", "$/^")+"$")
		}
		failures := runBrokenLocks(t, strings.Join(tests, "|"), limit)
		left = slices.DeleteFunc(left, func(i int) bool {
			b := brokenLocks[i]
			message, failed := failures[brokenTest(i)]
			found := failed && strings.Contains(message, b.message)
			switch {
			case found:
			case limit < time.Minute:
				t.Logf("within %v, %q is not found by %s: %.200s", limit, b.bug, b.test, message)
			case failed:
				t.Errorf("%q is found by %s, but it does not say %q:\n%s", b.bug, b.test, b.message, message)
			default:
				t.Errorf("%q is not found by %s", b.bug, b.test)
			}
			return found || limit >= time.Minute
		})
	}
}

// brokenTest returns the name of the test of a bug.
func brokenTest(i int) string {
	return fmt.Sprintf("TestBrokenLocks/%d/%s", i, brokenLocks[i].test)
}

// testBrokenLocks runs tests that give up after that time.
func testBrokenLocks(t *testing.T, limit time.Duration) {
	brief, hunting, patience = limit/20, limit, limit
	for i, b := range brokenLocks {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			Test(t, newMemory(b.bug))
		})
	}
}

var failure = regexp.MustCompile(`(?m)^ *--- FAIL: (\S+) .*$`)

// runBrokenLocks runs tests in another process, and returns what those that have failed say, by
// their names.
func runBrokenLocks(t *testing.T, tests string, limit time.Duration) map[string]string {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.Command(exe)
	// As for the tests of package fasteners: what runs the test binary if the system cannot.
	if emulator := os.Getenv("FASTENERS_TEST_EMULATOR"); emulator != "" {
		cmd = exec.Command(emulator, exe)
	}
	cmd.Args = append(cmd.Args, "-test.run", tests, "-test.parallel", "200", "-test.timeout", "0")
	// The race detector lets a process wait for a second before it exits.
	cmd.Env = append(os.Environ(), brokenVar+"="+limit.String(), "GORACE=atexit_sleep_ms=0")
	out, err := cmd.CombinedOutput()
	if _, failed := err.(*exec.ExitError); err != nil && !failed {
		t.Fatalf("the tests of broken locks end with the error %v:\n%s", err, out)
	}
	text := string(out)
	failures := map[string]string{}
	starts := failure.FindAllStringSubmatchIndex(text, -1)
	for i, s := range starts {
		end := len(text)
		if i+1 < len(starts) {
			end = starts[i+1][0]
		}
		failures[text[s[2]:s[3]]] = text[s[1]:end]
	}
	return failures
}
