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

// A worker is the state of a process of a contender.
type worker struct {
	*contender
	path    string
	ctx     context.Context // with a deadline, so that waits can be canceled; it is never reached
	handle  fasteners.Locker
	waiting sync.WaitGroup
	served  atomic.Int64
}

// check ends the process if err is not nil: a contender that fails cannot be measured further.
func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serveIfWorker makes this process a worker if the environment says so. Then it does not return.
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

// pairs measures the time of pairs of acquire and release.
func (w *worker) pairs(r request) reply {
	used, start := cpu(), now()
	for n := int64(0); ; {
		for range 16 { // reading the clock each time would add to the result
			w.pair(r.Fresh)
		}
		n += 16
		if d := now() - start; d >= int64(seconds(r.Seconds)) {
			return reply{Pairs: n, Nanos: d, CPU: cpu() - used}
		}
	}
}

// allocs counts the allocations of the whole process, because other goroutines may do part of the
// work.
func (w *worker) allocs(r request) reply {
	w.pair(r.Fresh) // the first one may initialize something
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range r.N {
		w.pair(r.Fresh)
	}
	runtime.ReadMemStats(&after)
	return reply{Allocs: float64(after.Mallocs-before.Mallocs) / float64(r.N)}
}

// add loses an update if two goroutines or processes call it at the same time. It uses atomics
// because the race detector does not know about file locks.
func add(counter *atomic.Int64) { counter.Store(counter.Load() + 1) }

// goroutines measures goroutines of this process that compete for the lock.
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
	d := now() - start // before all.Wait: some may still sleep between two tries
	all.Wait()
	return reply{Pairs: pairs.Load(), Nanos: d, CPU: cpu() - used, Lost: pairs.Load() - counter.Load()}
}

// count measures this process while it competes with others for the lock, to add to a counter
// in a file.
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

// mapCounter maps the counter in a file into memory, so that adding to it takes no system call.
func mapCounter(path string) *atomic.Int64 {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	check(err)
	defer f.Close()
	b, err := unix.Mmap(int(f.Fd()), 0, 8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	check(err)
	return (*atomic.Int64)(unsafe.Pointer(&b[0]))
}

// wait starts goroutines that wait for the lock, each with a handle of its own, and measures
// what that costs: their start included, or without it if r.Settle says how long that takes.
// It leaves them waiting.
func (w *worker) wait(r request) reply {
	idle, used := status("VmRSS:")<<10, cpu()
	w.waiting.Add(r.N)
	for range r.N {
		go w.waitForLock()
	}
	if r.Settle > 0 {
		time.Sleep(seconds(r.Settle))
		used = cpu()
	}
	start := now()
	time.Sleep(seconds(r.Seconds))
	return reply{
		CPU: cpu() - used, Nanos: now() - start,
		Threads: status("Threads:"), Idle: idle, Memory: status("VmRSS:") << 10,
	}
}

// waitForLock has a small frame: with some hundred bytes more, the runtime would double the
// stack of each goroutine, and the result would show the benchmark's memory.
func (w *worker) waitForLock() {
	l, err := w.open(w.path)
	if err == nil {
		err = l.Acquire(w.ctx)
	}
	w.finishWait(l, err)
}

//go:noinline
func (w *worker) finishWait(l fasteners.Locker, err error) {
	check(err)
	check(l.Release())
	check(closeHandle(l))
	w.served.Add(1)
	w.waiting.Done()
}

// serveAll waits until all goroutines have acquired and released the lock, or the time is over.
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

// cpu returns the CPU time that this process has used, in nanoseconds.
func cpu() int64 {
	var u unix.Rusage
	check(unix.Getrusage(unix.RUSAGE_SELF, &u))
	return u.Utime.Nano() + u.Stime.Nano()
}

// status returns a number from /proc/self/status, in the unit that it has there.
func status(key string) (n int64) {
	b, err := os.ReadFile("/proc/self/status")
	check(err)
	_, value, _ := strings.Cut(string(b), key)
	_, err = fmt.Sscan(value, &n)
	check(err)
	return n
}
