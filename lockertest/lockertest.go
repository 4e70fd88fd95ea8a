// Package lockertest tests implementations of [fasteners.Locker] and
// [fasteners.ReaderWriterLocker]. A test of the package that has one says how to make the locks,
// and calls [Test]:
//
//	func TestConformance(t *testing.T) {
//		server := startServer(t)
//		lockertest.Test(t, lockertest.Locks{
//			NewLock: func(t *testing.T, name string) fasteners.Locker {
//				client := newClient(t, server) // closed by t.Cleanup
//				return NewLock(client, name)
//			},
//			NewReaderWriterLock: func(t *testing.T, name string) fasteners.ReaderWriterLocker {
//				client := newClient(t, server)
//				return NewReaderWriterLock(client, name)
//			},
//			Lose:   func(t *testing.T, name string) { server.expireSessions(t, name) },
//			Tokens: true,
//		})
//	}
//
// # What is required
//
// Exclusion: a lock has one exclusive holder, or any number of readers, at a time. The holders are
// goroutines, whether they use one lock value or several. Readers do hold a lock together.
//
// Contexts: if the context is already done, acquiring fails even if the lock is free. A wait ends
// when the context is done. The error wraps that of the context, and its cause, and tells
// [os.IsTimeout] whether it was a deadline. A waiter that has given up does not get the lock
// later, and does not keep others from it: a reader does not wait for a writer that has given up.
// If the end of the context meets the grant, either the acquire succeeds, or the next waiter gets
// the lock, and never both. The end of the context does not release a lock that is held.
//
// Tries: a lock may have methods TryAcquire, TryAcquireReadLock and TryAcquireWriteLock, with or
// without a context, that return (bool, error). They do not wait for another holder: then they
// return false and no error. Otherwise they behave like Acquire and its siblings.
//
// Release: releasing a lock that is not held in this mode through this value changes nothing, and
// the error wraps [fasteners.ErrNotAcquired]. Another goroutine than the one that acquired the
// lock may release it. If there are several holds in this mode through this value, the methods
// Release and its siblings do not end one with a context as long as there is one without; and of
// two exclusive holds, they end the one that is lost.
//
// Failure: an acquire that fails or is refused and a release that fails change nothing for others,
// whether they hold this lock or another one, through the same value or another, or wait for it.
//
// Names: locks of different names have nothing to do with each other, also if one name is the
// beginning of the other.
//
// Fairness: waiters for exclusive holds that use one lock value are served in order of arrival,
// and with [Locks.OneQueue] also those that use several. A waiting writer is not passed by later
// readers without end, whatever value they use.
//
// Errors of acquires and releases are of type [*fs.PathError], or wrap one, with Op "acquire" or
// "release" and a Path that tells which lock it is.
//
// A lock may also be a [fasteners.ContextLocker] or a [fasteners.ContextReaderWriterLocker]. Then
// these methods must do what Acquire and its siblings do, and what the interface says. A lock
// whose holds have tokens must be one.
//
// Loss: when the lock may have passed to somebody else, the context of the hold ends, with a
// cause that wraps [fasteners.ErrLost], and the error of its release wraps that, too. The release
// ends no hold of another holder, and none that was acquired later through the same lock value.
//
// Tokens: the token of a hold is greater than that of every earlier hold that this one excludes,
// through whatever lock value, also after a loss.
//
// Test cannot find all faults: what happens when processes or machines stop, or lose their
// connection, is for tests of the implementation.
package lockertest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
)

// Locks says how to make the locks to be tested, and what they promise. At least one of the two
// constructors must be there. The functions are called by the goroutine of the test t, and can use
// t.Cleanup: when t ends, no goroutine uses its locks any more, unless t has failed.
type Locks struct {
	// NewLock returns a lock on what name names, as another process would have it: through another
	// handle, or of another client. It may be nil.
	//
	// A name consists of at most 64 lower-case letters, digits and hyphens, and with Slashes also
	// slashes. Every test has its own, also if the tests are run again, so that it can name a file
	// or a key of a server that goes on.
	NewLock func(t *testing.T, name string) fasteners.Locker

	// NewReaderWriterLock returns a lock for readers and writers, likewise. It may be nil.
	NewReaderWriterLock func(t *testing.T, name string) fasteners.ReaderWriterLocker

	// Lose makes all present holders of the lock on name lose it, such that others can acquire
	// it, and returns when that has happened. The holders need not have been told by then. It is
	// nil if there is no way to do that. Then what must happen when a lock is lost is not tested.
	Lose func(t *testing.T, name string)

	// Tokens says that holds have fencing tokens: see [fasteners.Token].
	Tokens bool

	// OneQueue says that waiters for exclusive holds are served in order of arrival whatever lock
	// value they use. Otherwise that is required only of waiters that use one value.
	OneQueue bool

	// Slashes says that names can have slashes inside, and "a/b" names another lock than "a".
	Slashes bool

	// Separate says that a Locker and a ReaderWriterLocker on the same name do not exclude each
	// other. Otherwise they must.
	Separate bool
}

// How long the tests wait. They are variables for the tests of this package.
var (
	// brief is how long to watch what must not happen. If it is too short on a slow machine, a
	// fault is overlooked, but no test fails.
	brief = 8 * time.Millisecond

	// hunting is how long to try to hit a moment at which something can go wrong, unless a fault
	// is found before. If it is too short, one is overlooked, but no test fails.
	hunting = 60 * time.Millisecond

	// patience is how long to wait for what must happen. When it is over, the test fails with the
	// stacks of all goroutines.
	patience = time.Minute
)

// rounds returns n, or less if the tests are to be short.
func rounds(n int) int {
	if testing.Short() {
		return n / 4
	}
	return n
}

// Test runs the tests as subtests of t, one after the other. With -short, it repeats less often
// what is a matter of chance. What waits in vain fails with the stacks of all goroutines, first
// those of the test and of the lock.
func Test(t *testing.T, locks Locks) {
	s := &suite{Locks: locks}
	s.findWays(t)
	t.Run("Exclusion", s.testExclusion)
	s.forEachWay(t, "Sharing", s.testSharing, isShared)
	t.Run("Context", s.testContext)
	s.forEachWay(t, "Try", s.testTry, isPlain)
	t.Run("Release", s.testRelease)
	s.forEachWay(t, "Names", s.testNames, func(w way) bool { return w.held || !s.supplyContexts(w) })
	s.forEachWay(t, "Hold", s.testHold, isHeld)
	s.forEachWay(t, "Function", s.testFunction, isPlain)
	t.Run("Fairness", s.testFairness)
	if s.Lose != nil {
		t.Run("Loss", s.testLoss)
	}
	if s.Tokens {
		t.Run("Tokens", s.testTokens)
	}
}

type suite struct {
	Locks
	ways []way
}

// findWays finds out in which ways the locks can be acquired.
func (s *suite) findWays(t *testing.T) {
	t.Helper()
	if s.NewLock == nil && s.NewReaderWriterLock == nil {
		t.Fatal("lockertest: no NewLock and no NewReaderWriterLock")
	}
	name := lockName(t)
	missing := func(lock any) {
		t.Helper()
		if s.Tokens {
			t.Fatalf("lockertest: a %T supplies no contexts, and so its holds cannot have tokens", lock)
		}
	}
	if s.NewLock != nil {
		s.ways = append(s.ways, acquire)
		lock := s.NewLock(t, name)
		if _, ok := lock.(fasteners.ContextLocker); ok {
			s.ways = append(s.ways, hold)
		} else {
			missing(lock)
		}
	}
	if s.NewReaderWriterLock != nil {
		s.ways = append(s.ways, acquireRead, acquireWrite)
		lock := s.NewReaderWriterLock(t, name)
		if _, ok := lock.(fasteners.ContextReaderWriterLocker); ok {
			s.ways = append(s.ways, holdRead, holdWrite)
		} else {
			missing(lock)
		}
	}
}

// forEachWay runs a test for each way to acquire the locks that has the wanted property, if there
// is one.
func (s *suite) forEachWay(t *testing.T, name string, run func(*testing.T, way), wanted func(way) bool) {
	var ways []way
	for _, w := range s.ways {
		if wanted(w) {
			ways = append(ways, w)
		}
	}
	if ways == nil {
		return
	}
	t.Run(name, func(t *testing.T) {
		for _, w := range ways {
			t.Run(w.name, func(t *testing.T) { run(t, w) })
		}
	})
}

// withContext returns a way that acquires the lock as w does, and supplies a context if there is
// one.
func (s *suite) withContext(w way) way {
	for _, o := range s.ways {
		if o.held && o.rw == w.rw && o.shared == w.shared {
			return o
		}
	}
	return w
}

// supplyContexts reports whether there is a way that supplies a context beside w.
func (s *suite) supplyContexts(w way) bool {
	return slices.ContainsFunc(s.ways, func(o way) bool { return o.held && o.rw == w.rw })
}

// beside returns the plain ways to acquire a lock that is also acquired in the way w, its own kind
// first.
func (s *suite) beside(w way) (ways []way) {
	for _, ownKind := range []bool{true, false} {
		for _, o := range s.ways {
			if !o.held && (o.rw == w.rw) == ownKind && (ownKind || !s.Separate) {
				ways = append(ways, o)
			}
		}
	}
	return ways
}

// open returns a new lock value, to be acquired in that way.
func (s *suite) open(t *testing.T, name string, w way) access {
	t.Helper()
	if w.rw {
		return access{w, s.NewReaderWriterLock(t, name)}
	}
	return access{w, s.NewLock(t, name)}
}

// maxName is the greatest length of a name.
const maxName = 64

// lockName returns a name that no other lock has. It tells the test.
func lockName(t *testing.T) string {
	words := strings.FieldsFunc(strings.ToLower(t.Name()), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	})
	text := strings.Join(words, "-")
	const most = maxName - len("-a-0123456789abcdef") // with room for an end
	text = strings.TrimLeft(text[max(0, len(text)-most):], "-")
	return fmt.Sprintf("%s-%016x", text, rand.Uint64())
}
