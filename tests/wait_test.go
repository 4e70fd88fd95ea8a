//go:build unix || windows

package tests

import (
	"bytes"
	"context"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
)

// A timeout bounds each wait anew, and nothing else.
func TestTimeout(t *testing.T) {
	path := lockPath(t)
	held := exclusive(path)
	held.mustAcquire(t)
	for _, v := range variants(path, fasteners.WithTimeout(time.Millisecond)) {
		for range 3 {
			checkHeldError(t, v.acquire(background), path, context.DeadlineExceeded)
		}
		ctx, cancel := context.WithCancel(background)
		cancel()
		checkError(t, v.acquire(ctx), "acquire", path, context.Canceled)
	}
	held.mustRelease(t)
	for _, v := range variants(path, fasteners.WithTimeout(time.Nanosecond)) {
		v.mustAcquire(t) // it need not wait
		v.mustRelease(t)
	}
	for _, v := range variants(path, fasteners.WithTimeout(-1)) {
		checkError(t, v.acquire(background), "acquire", path, fs.ErrInvalid)
	}
	for _, v := range variants(path, fasteners.WithWaitNotice(-1, func([]fasteners.Holder) {})) {
		checkError(t, v.acquire(background), "acquire", path, fs.ErrInvalid)
	}
	held.mustAcquire(t)
	unbounded := exclusive(path, fasteners.WithTimeout(0))
	acquired := unbounded.goAcquire(t, background)
	held.mustRelease(t)
	must(t, <-acquired)
	unbounded.mustRelease(t)
}

// A notice tells who holds the lock, again and again as long as the wait goes on, one call at a
// time, and never once it is over. It cannot delay the lock.
func TestWaitNotice(t *testing.T) {
	t.Parallel()
	path := lockPath(t)
	p := startHolder(t, path, "exclusive")
	var calls, running atomic.Int32
	called, goOn := make(chan []fasteners.Holder), make(chan bool)
	notice := func(holders []fasteners.Holder) {
		if running.Add(1) > 1 {
			t.Error("two calls at a time")
		}
		defer running.Add(-1)
		calls.Add(1)
		called <- holders
		<-goOn
	}
	for _, v := range variants(path, nil, fasteners.WithWaitNotice(time.Millisecond, notice))[:1] {
		calls.Store(0)
		acquired := v.goAcquire(t, background)
		for range 2 {
			holders := <-called
			if knowsHolders && (len(holders) != 1 || holders[0].PID != p.cmd.Process.Pid || holders[0].Waiting) {
				t.Errorf("holders are %v, want process %d", holders, p.cmd.Process.Pid)
			}
			if calls.Load() < 2 {
				goOn <- true
			}
		}
		p.release()
		must(t, <-acquired) // though the call has not returned
		goOn <- true
		v.mustRelease(t)
		p = startHolder(t, path, "exclusive")
	}

	calls.Store(0)
	free := exclusive(lockPath(t), fasteners.WithWaitNotice(0, notice))
	for range 100 {
		free.mustAcquire(t)
		free.mustRelease(t)
	}
	if n := calls.Load(); n > 0 {
		t.Errorf("%d calls without a wait", n)
	}
}

// The logger tells the same.
func TestWaitIsLogged(t *testing.T) {
	path := lockPath(t)
	held := exclusive(path)
	held.mustAcquire(t)
	noticed := make(chan bool, 100)
	var log syncBuffer
	lock := exclusive(path,
		fasteners.WithLogger(slog.New(slog.NewTextHandler(&log, nil))), // at Info and above
		fasteners.WithWaitNotice(time.Millisecond, func([]fasteners.Holder) { noticed <- true }))
	acquired := lock.goAcquire(t, background)
	<-noticed
	held.mustRelease(t)
	must(t, <-acquired)
	lock.mustRelease(t)
	// On a slow machine there can be a second line, and it tells for how many seconds the lock
	// is held.
	line, _, _ := strings.Cut(log.String(), "\n")
	for _, want := range []string{`level=INFO msg="fasteners: waiting"`, "path=", "waited=", `"held by"="this process`} {
		if !strings.Contains(line, want) {
			t.Errorf("log is %q, want a line with %q", line, want)
		}
	}
}

// A syncBuffer can be written by one goroutine and read by another.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// A timeout that is over before the wait begins tells who holds the lock, too.
func TestShortestTimeout(t *testing.T) {
	path := lockPath(t)
	p := startHolder(t, path, "write")
	for _, v := range variants(path, fasteners.WithTimeout(1)) {
		// The number of the file may be that of one which another test has removed, and which this
		// process is still closing. The wait for that would be over before anybody knew the holder.
		v.mustTry(t, false)
		holders := checkHeldError(t, v.acquire(background), path, context.DeadlineExceeded)
		if knowsHolders && (len(holders) != 1 || holders[0].PID != p.cmd.Process.Pid) {
			t.Errorf("holders are %v, want process %d", holders, p.cmd.Process.Pid)
		}
	}
}
