package lockertest

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The goroutines that a deadlock is about come first.
func TestSortStacks(t *testing.T) {
	t.Parallel()
	const (
		this      = "goroutine 30 [running]:\nexample.com/a.TestThis(0x1)\n\t/a.go:1\ntesting.tRunner(0x1)\n\t/t.go:1\ncreated by testing.(*T).Run in goroutine 20\n\t/t.go:2"
		waiter    = "goroutine 99 [select]:\nexample.com/lock.Acquire(0x1)\n\t/l.go:1\ncreated by example.com/a.TestThis in goroutine 30\n\t/a.go:2"
		child     = "goroutine 7 [IO wait]:\ninternal/poll.runtime_pollWait(0x1)\n\t/r.go:1\ncreated by example.com/lock.Acquire in goroutine 99\n\t/l.go:2"
		session   = "goroutine 25 [select]:\nexample.com/lock.keep(0x1)\n\t/l.go:3\ncreated by example.com/lock.New in goroutine 20\n\t/l.go:4"
		orphan    = "goroutine 26 [select]:\nexample.com/lock.keep(0x1)\n\t/l.go:3\ncreated by example.com/lock.New in goroutine 5000\n\t/l.go:4"
		parent    = "goroutine 20 [chan receive]:\ntesting.(*T).Run(0x1)\n\t/t.go:3\nexample.com/a.TestAll(0x1)\n\t/a.go:3\ntesting.tRunner(0x1)\n\t/t.go:1\ncreated by testing.(*T).Run in goroutine 1\n\t/t.go:2"
		otherTest = "goroutine 40 [sleep]:\nexample.com/a.TestOther(0x1)\n\t/a.go:4\ntesting.tRunner(0x1)\n\t/t.go:1\ncreated by testing.(*T).Run in goroutine 1\n\t/t.go:2"
		ofOther   = "goroutine 41 [select]:\nexample.com/lock.Acquire(0x1)\n\t/l.go:1\ncreated by example.com/a.TestOther in goroutine 40\n\t/a.go:5"
		main      = "goroutine 1 [chan receive]:\ntesting.tRunner(0x1)\n\t/t.go:1\nmain.main()\n\t/m.go:1"
		runtime   = "goroutine 18 [syscall]:\nos/signal.signal_recv()\n\t/s.go:1\ncreated by os/signal.Notify.func1.1 in goroutine 1\n\t/s.go:2"
	)
	sorted := sortStacks(strings.Join([]string{
		this, main, otherTest, ofOther, runtime, session, child, parent, waiter, orphan,
	}, "\n\n"))
	want := []string{
		this, child, waiter, session, orphan, main, otherTest, ofOther, runtime, parent,
	}
	if got := strings.Split(strings.TrimSpace(sorted), "\n\n"); !slices.Equal(got, want) {
		t.Errorf("the order is\n%s\n\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// The real thing has the form that sortStacks knows, and what waits for the lock follows the
// goroutine that tells of it, whatever else runs.
func TestStacks(t *testing.T) {
	t.Parallel()
	stop := make(chan bool)
	defer close(stop)
	for range 10 {
		go func() { <-stop }()
	}
	t.Run("waiting", func(t *testing.T) {
		a := access{acquire, newMemory("").NewLock(t, "lock")}
		h := a.mustAcquire(t)
		c := a.startWaiting(t, t.Context())
		all := regexp.MustCompile(`(?m)^goroutine \d+ .*\n.*`).FindAllString(stacks(), -1)
		mustRelease(t, h)
		mustRelease(t, a.mustGet(t, c))
		if len(all) < 13 || !strings.Contains(all[0], "[running]") || !strings.Contains(all[1], "memoryLock).get") {
			t.Errorf("the stacks begin with:\n%s", strings.Join(all, "\n"))
		}
	})
}
