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
	leaders, threads, descriptors := p.number(), p.number(), p.number()
	t.Logf("%d leaders, %d threads in system calls, %d descriptors of the lock file", leaders, threads, descriptors)
	if leaders > 1 {
		t.Errorf("%d goroutines wait for the other process", leaders)
	}
	if threads > 8 { // the leader, and what belongs to the helper and the runtime
		t.Errorf("%d threads in system calls", threads)
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
	fmt.Println("waiting")
	fmt.Println(goroutinesIn(leading))
	fmt.Println(goroutinesIn(inSystem))
	fmt.Println(resources(path).lockFile)
	if err := g.Wait(); err != nil {
		return err
	}
	if acquired != n {
		return fmt.Errorf("%d of %d goroutines have acquired the lock", acquired, n)
	}
	fmt.Println("all acquired")
	return nil
})

// What the names of functions contain that tell what a goroutine does which is in them.
const (
	queueing = "locktable.(*waiter).block" // it waits for its turn, behind the leader
	leading  = "locktable.(*entry).wait"   // it waits for another process
	inKernel = "posix.(*wait).block"       // in the kernel
	inSystem = "syscall."                  // it is in a system call, which takes a thread
)

// waitUntilWaiting waits until n goroutines wait for locks, in the queue or as its leader.
func waitUntilWaiting(n int) {
	for goroutinesIn(queueing)+goroutinesIn(leading) < n {
		time.Sleep(time.Millisecond)
	}
}

// goroutinesIn returns how many goroutines are in all of the functions.
func goroutinesIn(functions ...string) (n int) {
	stacks := make([]runtime.StackRecord, runtime.NumGoroutine()+100)
	have, ok := runtime.GoroutineProfile(stacks)
	for !ok {
		stacks = make([]runtime.StackRecord, 2*have)
		have, ok = runtime.GoroutineProfile(stacks)
	}
	for _, stack := range stacks[:have] {
		in := map[string]bool{}
		frames := runtime.CallersFrames(stack.Stack())
		for more := true; more; {
			var f runtime.Frame
			f, more = frames.Next()
			for _, name := range functions {
				if strings.Contains(f.Function, name) {
					in[name] = true
				}
			}
		}
		if len(in) == len(functions) {
			n++
		}
	}
	return n
}

// A goroutineID is the beginning of what a dump tells of a goroutine: "goroutine 17 [".
type goroutineID string

func thisGoroutine() goroutineID {
	buf := make([]byte, 100)
	id, _, _ := strings.Cut(string(buf[:runtime.Stack(buf, false)]), "[")
	return goroutineID(id + "[")
}

// isWaiting reports whether the goroutine waits for a lock, and is not just about to.
func (id goroutineID) isWaiting() bool {
	buf := make([]byte, 1<<16)
	n := runtime.Stack(buf, true)
	for n == len(buf) {
		buf = make([]byte, 2*len(buf))
		n = runtime.Stack(buf, true)
	}
	for _, g := range strings.Split(string(buf[:n]), "\n\n") {
		state, ok := strings.CutPrefix(g, string(id))
		if !ok || !strings.HasPrefix(state, "select") && !strings.HasPrefix(state, "syscall") {
			continue
		}
		return strings.Contains(g, queueing) || strings.Contains(g, leading)
	}
	return false
}
