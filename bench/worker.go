//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners"
)

// A worker is a process of a contender, seen from the inside.
type worker struct {
	*contender
	path    string
	ctx     context.Context // has a deadline, which does not come
	handle  fasteners.Locker
	waiting sync.WaitGroup
	served  atomic.Int64
}

// check ends the process: for a contender that fails there is nothing more to measure.
func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serveIfWorker makes this process a worker, and never returns, if the environment wants it.
func serveIfWorker() {
	name, ok := os.LookupEnv(envContender)
	if !ok {
		return
	}
	for _, c := range contenders {
		if c.name == name {
			serve(c, os.Getenv(envPath))
		}
	}
	check(fmt.Errorf("no such contender: %s", name))
}

func serve(c *contender, path string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	handle, err := c.open(path)
	check(err)
	w := &worker{contender: c, path: path, ctx: ctx, handle: handle}

	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for answer := (reply{}); ; {
		check(out.Encode(answer))
		var r request
		check(in.Decode(&r))
		answer = w.do(r)
	}
}

func (w *worker) do(r request) reply {
	switch r.Do {
	case "pairs":
		return w.pairs(r)
	case "allocs":
		return w.allocs(r)
	case "goroutines":
		return w.goroutines(r)
	case "count":
		return w.count(r)
	case "acquire":
		check(w.handle.Acquire(w.ctx))
		return reply{At: now()}
	case "release":
		time.Sleep(seconds(r.Settle))
		at := now()
		check(w.handle.Release())
		return reply{At: at}
	case "wait":
		return w.wait(r)
	case "serve":
		return w.serveAll(r)
	}
	check(fmt.Errorf("unknown request %q", r.Do))
	return reply{}
}

// pair acquires and releases the lock.
func (w *worker) pair(fresh bool) {
	l := w.handle
	if fresh {
		var err error
		l, err = w.open(w.path)
		check(err)
	}
	check(l.Acquire(w.ctx))
	check(l.Release())
	if fresh {
		check(closeHandle(l))
	}
}

// pairs measures the time of pairs.
func (w *worker) pairs(r request) reply {
	used, start := cpu(), now()
	for n := int64(0); ; {
		for range 16 { // so that reading the clock adds little
			w.pair(r.Fresh)
		}
		n += 16
		if d := now() - start; d >= int64(seconds(r.Seconds)) {
			return reply{Pairs: n, Nanos: d, CPU: cpu() - used}
		}
	}
}

// allocs counts the allocations of the whole process, as other goroutines may do a part of
// the work.
func (w *worker) allocs(r request) reply {
	w.pair(r.Fresh) // the first one may prepare something
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range r.N {
		w.pair(r.Fresh)
	}
	runtime.ReadMemStats(&after)
	return reply{Allocs: float64(after.Mallocs-before.Mallocs) / float64(r.N)}
}

// add loses an update if two do it at a time. Without the atomics, the race detector, to
// which a file lock is nothing, would complain.
func add(counter *atomic.Int64) { counter.Store(counter.Load() + 1) }

// goroutines lets goroutines of this process compete for the lock.
func (w *worker) goroutines(r request) reply {
	var stop atomic.Bool
	var pairs, counter atomic.Int64
	var all sync.WaitGroup
	used, start := cpu(), now()
	for range r.N {
		all.Go(func() {
			l := w.handle
			if !r.Shared {
				var err error
				l, err = w.open(w.path)
				check(err)
				defer closeHandle(l)
			}
			n := int64(0)
			for ; !stop.Load(); n++ {
				check(l.Acquire(w.ctx))
				add(&counter)
				check(l.Release())
			}
			pairs.Add(n)
		})
	}
	time.Sleep(seconds(r.Seconds))
	stop.Store(true)
	d := now() - start // some may yet sleep between two tries
	all.Wait()
	return reply{Pairs: pairs.Load(), Nanos: d, CPU: cpu() - used, Lost: pairs.Load() - counter.Load()}
}

// count competes with other processes for the lock, to add to a counter in a file.
func (w *worker) count(r request) reply {
	counter := mapCounter(w.path + ".count")
	time.Sleep(time.Duration(r.Start - now()))
	used, start := cpu(), now()
	end := start + int64(seconds(r.Seconds))
	var out reply
	for t := start; t < end; out.Pairs++ {
		check(w.handle.Acquire(w.ctx))
		out.Longest = max(out.Longest, now()-t)
		add(counter)
		check(w.handle.Release())
		t = now()
	}
	out.Nanos, out.CPU = now()-start, cpu()-used
	return out
}

// mapCounter maps the counter in a file, so that to add to it takes no system call.
func mapCounter(path string) *atomic.Int64 {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	check(err)
	defer f.Close()
	b, err := unix.Mmap(int(f.Fd()), 0, 8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	check(err)
	return (*atomic.Int64)(unsafe.Pointer(&b[0]))
}

// wait lets goroutines wait for the lock, with a handle each, and measures what that takes:
// with the cost of the beginning, or from when they have settled. It leaves them waiting.
func (w *worker) wait(r request) reply {
	idle, used := status("VmRSS:")<<10, cpu()
	w.waiting.Add(r.N)
	for range r.N {
		go w.waitForTurn()
	}
	if r.Settle > 0 {
		time.Sleep(seconds(r.Settle))
		used = cpu()
	}
	start := now()
	time.Sleep(seconds(r.Seconds))
	return reply{CPU: cpu() - used, Nanos: now() - start, Threads: status("Threads:"), Idle: idle, Memory: status("VmRSS:") << 10}
}

// waitForTurn has next to nothing on its stack while it waits: with some hundred bytes
// more, the runtime would double that of each goroutine, and the memory would be ours.
func (w *worker) waitForTurn() {
	l, err := w.open(w.path)
	if err == nil {
		err = l.Acquire(w.ctx)
	}
	w.haveTurn(l, err)
}

//go:noinline
func (w *worker) haveTurn(l fasteners.Locker, err error) {
	check(err)
	check(l.Release())
	check(closeHandle(l))
	w.served.Add(1)
	w.waiting.Done()
}

// serveAll returns when all that wait have had the lock, or the time is over.
func (w *worker) serveAll(r request) reply {
	done := make(chan struct{})
	go func() {
		w.waiting.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(seconds(r.Seconds)):
	}
	return reply{At: now(), Served: w.served.Load()}
}

// now reads the monotonic clock of the machine, in nanoseconds.
func now() int64 {
	var t unix.Timespec
	check(unix.ClockGettime(unix.CLOCK_MONOTONIC, &t))
	return t.Nano()
}

// cpu returns the CPU time that this process has taken, in nanoseconds.
func cpu() int64 {
	var u unix.Rusage
	check(unix.Getrusage(unix.RUSAGE_SELF, &u))
	return u.Utime.Nano() + u.Stime.Nano()
}

// status returns a number that the kernel has about this process, in its unit.
func status(key string) (n int64) {
	b, err := os.ReadFile("/proc/self/status")
	check(err)
	_, value, _ := strings.Cut(string(b), key)
	_, err = fmt.Sscan(value, &n)
	check(err)
	return n
}
