package fasteners_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
)

// A release wakes waiters of other processes by an event. These tests acquire locks by events
// alone: if an event were lost, a waiter would wait forever, as it does not poll.

// eventVariants returns variants that acquire the lock by events alone. They cannot try.
func eventVariants(path string) []variant {
	all := variants(path)
	for i := range all {
		v := &all[i]
		var release func() error
		exclusive := !v.shared
		v.try = nil
		v.acquire = func(ctx context.Context) (err error) {
			release, err = fasteners.LockByEvents(ctx, path, exclusive)
			return err
		}
		v.release = func() error { return release() }
	}
	return all
}

func eventVariantNamed(path, name string) variant {
	return eventVariants(path)[slices.Index(variantNames, name)]
}

// startEventWaiter starts a process that waits for a lock, which must be held, by events alone.
// When the process has acquired the lock, it waits for a line of input before it releases the lock.
// Before that, a line of input cancels the wait.
func startEventWaiter(t testing.TB, path, variant string) *process {
	t.Helper()
	p := startHelper(t, eventWaiterHelper, path, variant)
	p.expect("waiting")
	return p
}

var eventWaiterHelper = newHelper("event waiter", func(in *bufio.Reader, args []string) error {
	v := eventVariantNamed(args[0], args[1])
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- v.acquire(ctx) }()
	select {
	case <-done:
		return errors.New("the lock is free")
	case <-time.After(10 * time.Millisecond):
	}
	fmt.Println("waiting")
	lines := make(chan string)
	go func() {
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				os.Exit(0) // the test has ended
			}
			lines <- strings.TrimSpace(line)
		}
	}()
	select {
	case err := <-done:
		if err != nil {
			return err
		}
		fmt.Println("held")
		<-lines
	case <-lines:
		cancel()
		if err := <-done; err != nil {
			return nil
		}
	}
	if err := v.release(); err != nil {
		return err
	}
	fmt.Println("released")
	return nil
})

func TestReleaseWakesWaiter(t *testing.T) {
	for _, ours := range variantNames {
		for _, theirs := range variantNames {
			if ours == "read" && theirs == "read" {
				continue
			}
			t.Run(ours+"/"+theirs, func(t *testing.T) {
				path := lockPath(t)
				v := eventVariantNamed(path, ours)
				v.mustAcquire(t)
				p := startEventWaiter(t, path, theirs)
				v.mustRelease(t)
				p.expect("held")
				done := v.goAcquire(t, cancelable(t))
				p.release()
				must(t, <-done)
				v.mustRelease(t)
			})
		}
	}
}

// A waiter that is canceled just as it is woken wakes another one. The canceled waiters are the
// first to wait, and therefore the first to be woken.
func TestCanceledWaiterWakesNext(t *testing.T) {
	for _, variant := range []string{"read", "write"} {
		for range 10 {
			path := lockPath(t)
			holder := exclusive(path)
			holder.mustAcquire(t)
			canceled := []*process{startEventWaiter(t, path, variant), startEventWaiter(t, path, variant)}
			last := startEventWaiter(t, path, variant)
			canceled[0].say("cancel")
			holder.mustRelease(t)
			canceled[1].say("cancel")
			last.expect("held")
			for _, p := range canceled {
				p.finish()
			}
			last.release()
		}
	}
}

// After one release all waiting readers acquire the lock, as each of them wakes the next.
func TestReadersWakeReaders(t *testing.T) {
	path := lockPath(t)
	holder := exclusive(path)
	holder.mustAcquire(t)
	var readers []*process
	for range 4 {
		readers = append(readers, startEventWaiter(t, path, "read"))
	}
	holder.mustRelease(t)
	for _, p := range readers {
		p.expect("held")
	}
	for _, p := range readers {
		p.release()
	}
}

// No wake-up is lost when many processes acquire and release the lock, and give up waiting.
func TestNoLostWakeups(t *testing.T) {
	path := lockPath(t)
	var procs []*process
	for range 4 {
		procs = append(procs, startHelper(t, eventLoopHelper, path))
	}
	for _, p := range procs {
		p.say("go")
	}
	for _, p := range procs {
		p.expect("done")
		p.finish()
	}
}

var eventLoopHelper = newHelper("event loop", func(in *bufio.Reader, args []string) error {
	if _, err := in.ReadString('\n'); err != nil {
		return err
	}
	all := eventVariants(args[0])
	for i := range 200 {
		ctx, cancel := context.WithCancel(background)
		if i%4 == 3 {
			ctx, cancel = context.WithTimeout(background, rand.N(10*time.Millisecond))
		}
		err := all[i%3].hold(ctx)
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
	fmt.Println("done")
	return nil
})
