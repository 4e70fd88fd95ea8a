package wake

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func watch(t *testing.T, path string) *Watch {
	t.Helper()
	w := New(int(open(t, path).Fd()))
	if w.event == nil {
		t.Fatal("no events")
	}
	t.Cleanup(w.Stop)
	return w
}

// set sets idle or late for the time of the test.
func set(t *testing.T, v *time.Duration, d time.Duration) {
	swap := func() {
		process.Lock()
		defer process.Unlock()
		*v, d = d, *v
	}
	swap()
	t.Cleanup(swap)
}

func (w *Watch) mustSee(t *testing.T) {
	t.Helper()
	for !w.Wait(t.Context(), time.Hour) { // it may return early
	}
}

func (w *Watch) mustNotSee(t *testing.T) {
	t.Helper()
	if w.Wait(t.Context(), 10*time.Millisecond) {
		t.Error("an event, for nothing")
	}
}

func TestEvents(t *testing.T) {
	dir := t.TempDir()
	for name, event := range map[string]func(path string){
		"close":     func(path string) { open(t, path).Close() },
		"read only": func(path string) { os.ReadFile(path) },
		"remove":    func(path string) { os.Remove(path) },
		"rename":    func(path string) { os.Rename(path, path+".new") },
		"replace": func(path string) {
			os.WriteFile(path+".2", nil, 0o666)
			os.Rename(path+".2", path)
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
			w, other := watch(t, path), watch(t, path+".other")
			if !w.Complete() {
				t.Error("not all make events, on a local file system")
			}
			w.mustNotSee(t)
			event(path)
			w.mustSee(t)
			other.mustNotSee(t)
			want := name != "close" && name != "read only"
			if moved, again := w.Moved(), w.Moved(); moved != want || again {
				t.Errorf("it takes the name to have moved: %v, then %v; want %v, then false", moved, again, want)
			}
		})
	}
}

// A file system that could be shared with other machines is one that makes not all events.
func TestComplete(t *testing.T) {
	for path, want := range map[string]bool{"/dev/shm": true, "/proc/version": false} {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		w := New(fd)
		if w.Complete() != want {
			t.Errorf("%s: %v", path, w.Complete())
		}
		w.Stop()
		unix.Close(fd)
	}
}

// An instance that cannot be read does not make a Wait spin.
func TestBrokenInstance(t *testing.T) {
	w := watch(t, filepath.Join(t.TempDir(), "file"))
	conn := &brokenConn{}
	process.Lock()
	defer func(conn syscall.RawConn) { process.conn = conn }(process.conn)
	process.conn = conn
	process.Unlock()
	w.mustNotSee(t)
	if conn.reads != 1 {
		t.Errorf("%d reads", conn.reads)
	}
}

type brokenConn struct {
	syscall.RawConn
	reads int
}

func (c *brokenConn) Read(f func(fd uintptr) bool) error {
	c.reads++
	f(^uintptr(0))
	return nil
}

// A reader whose context is done sets a deadline to be woken. When that comes late it meets the next
// one who reads, and is none of his business.
func TestDeadlineOfAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	w := watch(t, path)
	process.Lock()
	conn := &notedConn{process.conn, make(chan struct{})}
	defer func(conn syscall.RawConn) { process.conn = conn }(process.conn)
	process.conn = conn
	instance := process.instance
	process.Unlock()

	saw := make(chan bool)
	go func() { saw <- w.Wait(t.Context(), time.Hour) }()
	for reads := 1; ; reads++ {
		select {
		case <-conn.reads:
		case event := <-saw:
			if !event {
				t.Fatalf("returned after %d reads, without an event", reads-1)
			}
			return
		}
		if reads < 10 {
			instance.SetReadDeadline(time.Unix(1, 0))
		} else {
			open(t, path).Close()
		}
	}
}

type notedConn struct {
	syscall.RawConn
	reads chan struct{}
}

func (c *notedConn) Read(f func(fd uintptr) bool) error {
	c.reads <- struct{}{}
	return c.RawConn.Read(f)
}

// Two watches of one file are independent, and one that has ended sees nothing.
func TestTwoWatches(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	a, b := watch(t, path), watch(t, path)
	open(t, path).Close()
	a.mustSee(t)
	b.mustSee(t)
	a.Stop()
	open(t, path).Close()
	b.mustSee(t)
	a.mustNotSee(t)
}

// One reads for all, and when it goes another one does: nobody misses an event.
func TestManyWait(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for i := range 20 {
		path := filepath.Join(dir, strconv.Itoa(i))
		w := watch(t, path)
		signal := make(chan bool)
		wg.Go(func() {
			for range 200 {
				w.mustSee(t)
				signal <- true
			}
		})
		wg.Go(func() {
			for range 200 {
				fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
				if err != nil {
					t.Error(err)
				}
				unix.Close(fd)
				<-signal
			}
		})
	}
	// And some who give up all the time.
	for i := range 5 {
		w := watch(t, filepath.Join(dir, strconv.Itoa(i)))
		wg.Go(func() {
			for range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
				w.Wait(ctx, time.Hour)
				cancel()
			}
		})
	}
	wg.Wait()
	process.Lock()
	defer process.Unlock()
	if process.reading {
		t.Error("somebody is to read, but nobody does")
	}
}

// Wait ends with the context and with the time, for the one who reads and for others.
func TestWaitEnds(t *testing.T) {
	dir := t.TempDir()
	reader, other := watch(t, filepath.Join(dir, "a")), watch(t, filepath.Join(dir, "b"))
	for _, second := range []bool{false, true} {
		w := reader
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan bool)
		if second {
			w = other
			go func() {
				reader.Wait(ctx, time.Hour)
				close(done)
			}()
			for reading := false; !reading; {
				process.Lock()
				reading = process.reading
				process.Unlock()
			}
		} else {
			close(done)
		}
		w.mustNotSee(t)
		time.AfterFunc(time.Millisecond, cancel)
		for ctx.Err() == nil { // it may return early
			if w.Wait(ctx, time.Hour) {
				t.Error("an event, for nothing")
			}
		}
		<-done
	}
}

// When nobody watches any more, the instance goes; then there is a new one.
func TestInstanceGoes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for range 3 {
		w := watch(t, path)
		if instances(t) != 1 {
			t.Fatalf("%d inotify instances while watching", instances(t))
		}
		w.Stop()
		for instances(t) > 0 { // for ever, if it does not go
			time.Sleep(time.Millisecond)
		}
		w = watch(t, path)
		open(t, path).Close()
		w.mustSee(t)
		w.Stop()
		Tidy()
	}
}

func instances(t *testing.T) int {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, fd := range fds {
		if target, _ := os.Readlink("/proc/self/fd/" + fd.Name()); target == "anon_inode:inotify" {
			n++
		}
	}
	return n
}

// A program that is executed while somebody waits does not inherit the instance.
func TestInstanceIsCloseOnExec(t *testing.T) {
	watch(t, filepath.Join(t.TempDir(), "file"))
	process.Lock()
	defer process.Unlock()
	flags, err := unix.FcntlInt(uintptr(process.fd), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags are %#x, %v", flags, err)
	}
}

// When a watch ends, the kernel does not go on making events for it for long.
func TestWatchesAreRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	watch(t, path+".keep")
	w := watch(t, path)
	if n := watches(t); n < 2 {
		t.Errorf("%d watches, want 2", n)
	}
	w.Stop()
	for watches(t) > 1 { // for ever, if it does not go
		time.Sleep(time.Millisecond)
	}
}

func watches(t *testing.T) int {
	t.Helper()
	process.Lock()
	defer process.Unlock()
	info, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(process.fd))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(info), "inotify wd:")
}

// What was needed a moment ago is kept, as it most likely is needed again.
func TestWatchesStay(t *testing.T) {
	set(t, &idle, time.Hour)
	w := watch(t, filepath.Join(t.TempDir(), "file"))
	w.Stop()
	process.Lock()
	before := process.instance
	process.Unlock()
	sweep()
	process.Lock()
	defer process.Unlock()
	if process.instance != before || process.files[w.wd] == nil {
		t.Error("it is gone")
	}
	for _, f := range process.files {
		f.left = time.Time{} // long ago
	}
	sweepAfter(0)
}

// A sweep that comes late ends nothing that is in use.
func TestLateSweep(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	w := watch(t, path)
	sweep()
	open(t, path).Close()
	w.mustSee(t)
}

// Where no instance is to be had a watch is a timer, until there is one.
func TestInstanceLater(t *testing.T) {
	set(t, &again, 0)
	path := filepath.Join(t.TempDir(), "file")
	for Tidy(); instances(t) > 0; { // of the tests before
		time.Sleep(time.Millisecond)
	}
	fd := int(open(t, path).Fd())
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	// Nobody else has to suffer from that, as from the lack of what the user may have.
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	w := New(fd)
	defer w.Stop()
	event := w.Wait(t.Context(), time.Millisecond)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if event || w.Complete() {
		t.Fatal("events, without an instance")
	}
	if w.Wait(over, time.Hour); instances(t) > 0 {
		t.Fatal("an instance for one who has given up")
	}
	// One who has years to wait does not take as long to look.
	if w.Wait(t.Context(), 1000*time.Hour) || !w.Complete() {
		t.Fatal("no events, with an instance")
	}
	open(t, path).Close()
	w.mustSee(t)
}

// When the kernel has lost events, everybody is told.
func TestOverflow(t *testing.T) {
	limit, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(limit)))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	touch := func(path string) {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
	}
	paths := []string{filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "c")}
	watch(t, paths[0])
	watch(t, paths[1])
	w := watch(t, paths[2])
	for i := range n + 1000 { // of one file in a row there would be but one event
		touch(paths[i%2])
	}
	touch(paths[2]) // whose event is lost
	w.mustSee(t)
}

// A watch that was woken leaves the instance to Tidy, or else to a timer.
func TestTidy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	set(t, &late, 100*time.Millisecond)
	for _, tidy := range []bool{true, false} {
		w := watch(t, path)
		open(t, path).Close()
		w.mustSee(t)
		w.Stop()
		if tidy {
			Tidy()
		}
		for instances(t) > 0 { // for ever, if it does not go
			time.Sleep(time.Millisecond)
		}
	}
}

// Those who come all the time do not put the sweep off.
func TestSweepIsNotPutOff(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	watch(t, path).Stop()
	process.Lock()
	at := process.sweepAt
	process.Unlock()
	watch(t, path).Stop()
	process.Lock()
	defer process.Unlock()
	if process.sweepAt.After(at) && !at.Before(time.Now()) {
		t.Errorf("it was to come at %v, and comes at %v", at, process.sweepAt)
	}
}

func BenchmarkSleep(b *testing.B) {
	const d = 200 * time.Microsecond
	b.Run("ours", func(b *testing.B) {
		for b.Loop() {
			Sleep(d)
		}
	})
	b.Run("time", func(b *testing.B) {
		for b.Loop() {
			time.Sleep(d)
		}
	})
}
