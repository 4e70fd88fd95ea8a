//go:build unix || windows

package tests

import (
	"bufio"
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
)

// A process holds the locks of a hundred files at the same time.
func TestManyFiles(t *testing.T) {
	dir := t.TempDir()
	var held []*fasteners.InterProcessLock
	for i := range 100 {
		l := fasteners.NewInterProcessLock(filepath.Join(dir, fmt.Sprint(i)))
		ok, err := l.TryAcquire()
		if !ok || err != nil {
			t.Fatalf("file %d: %v, %v", i, ok, err)
		}
		held = append(held, l)
	}
	for _, l := range held {
		must(t, l.Release())
	}
}

// Twenty thousand goroutines wait for a lock that another process holds. They need one descriptor
// and few threads, and all of them acquire the lock.
func TestManyWaiters(t *testing.T) {
	t.Parallel()
	path := lockPath(t)
	holder := startHolder(t, path, "exclusive")
	n := 20000
	if testing.Short() {
		n = 2000
	}
	p := startHelper(t, manyWaitersHelper, path, strconv.Itoa(n))
	p.expect("waiting")
	threads, descriptors := p.number(), p.number()
	t.Logf("%d threads, %d descriptors of the lock file", threads, descriptors)
	if threads > 64 {
		t.Errorf("%d threads", threads)
	}
	if descriptors > 1 {
		t.Errorf("%d descriptors of the lock file", descriptors)
	}
	holder.release()
	p.expect("all acquired")
}

var manyWaitersHelper = newHelper("many waiters", func(in *bufio.Reader, args []string) error {
	path := args[0]
	go exitAtEOF(in)
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(background, time.Hour)
	defer cancel()
	shared := fasteners.NewInterProcessLock(path)
	acquired := 0
	var g group
	for i := range n {
		l := shared
		if i%2 == 0 {
			l = fasteners.NewInterProcessLock(path)
		}
		g.Go(func() error {
			if err := l.Acquire(ctx); err != nil {
				return err
			}
			acquired++ // the lock protects it, as the race detector checks
			return l.Release()
		})
	}
	waitUntilWaiting(n)
	u := resources(path)
	fmt.Println("waiting")
	fmt.Println(u.threads)
	fmt.Println(u.lockFile)
	if err := g.Wait(); err != nil {
		return err
	}
	if acquired != n {
		return fmt.Errorf("%d of %d goroutines have acquired the lock", acquired, n)
	}
	fmt.Println("all acquired")
	return nil
})

// waitUntilWaiting waits until n goroutines wait for locks, in the queue or as its leader.
func waitUntilWaiting(n int) {
	for capacity := n + 100; ; {
		stacks := make([]runtime.StackRecord, capacity)
		have, ok := runtime.GoroutineProfile(stacks)
		if !ok {
			capacity *= 2
			continue
		}
		waiting := 0
		for _, stack := range stacks[:have] {
			if isWaiting(stack) {
				waiting++
			}
		}
		if waiting >= n {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func isWaiting(stack runtime.StackRecord) bool {
	frames := runtime.CallersFrames(stack.Stack())
	for {
		f, more := frames.Next()
		if strings.HasSuffix(f.Function, "table.(*waiter).block") || strings.HasSuffix(f.Function, "table.(*entry).wait") {
			return true
		}
		if !more {
			return false
		}
	}
}
