package wake

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
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

func mustNotFire(t *testing.T, events <-chan struct{}) {
	t.Helper()
	select {
	case <-events:
		t.Error("an event, for nothing")
	case <-time.After(10 * time.Millisecond):
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
			f, other := open(t, path), open(t, path+".other")
			events, _, stop := Watch(int(f.Fd()))
			if events == nil {
				t.Fatal("no events")
			}
			others, _, stopOther := Watch(int(other.Fd()))
			event(path)
			<-events
			mustNotFire(t, others)
			stop()
			stopOther()
		})
	}
}

// Two watches of one file are independent, and one that has ended gets nothing.
func TestTwoWatches(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	f := open(t, path)
	a, _, stopA := Watch(int(f.Fd()))
	b, _, stopB := Watch(int(f.Fd()))
	open(t, path).Close()
	<-a
	<-b
	stopA()
	open(t, path).Close()
	<-b
	mustNotFire(t, a)
	stopB()
}

// When nobody watches any more, the instance goes; then there is a new one.
func TestInstanceGoes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	f := open(t, path)
	for range 3 {
		_, _, stop := Watch(int(f.Fd()))
		if instances(t) != 1 {
			t.Fatalf("%d inotify instances while watching", instances(t))
		}
		stop()
		for instances(t) > 0 { // for ever, if it does not go
			time.Sleep(time.Millisecond)
		}
		events, _, stop := Watch(int(f.Fd()))
		open(t, path).Close()
		<-events
		stop()
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
	f := open(t, filepath.Join(t.TempDir(), "file"))
	_, _, stop := Watch(int(f.Fd()))
	defer stop()
	process.Lock()
	defer process.Unlock()
	flags, err := unix.FcntlInt(uintptr(process.fd), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags are %#x, %v", flags, err)
	}
}

// When a watch ends, the kernel does not go on making events for it.
func TestWatchesAreRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	keep, other := open(t, path+".keep"), open(t, path)
	_, _, stopKeep := Watch(int(keep.Fd()))
	defer stopKeep()
	_, _, stop := Watch(int(other.Fd()))
	if n := watches(t); n != 2 {
		t.Errorf("%d watches, want 2", n)
	}
	stop()
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

// A timer that comes late ends nothing that is in use.
func TestLateExpiry(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	f := open(t, path)
	events, _, stop := Watch(int(f.Fd()))
	defer stop()
	sweep()
	open(t, path).Close()
	<-events
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
	path := filepath.Join(t.TempDir(), "file")
	var paths [2]string
	for i := range paths {
		paths[i] = path + strconv.Itoa(i)
		_, _, stop := Watch(int(open(t, paths[i]).Fd()))
		defer stop()
	}
	events, _, stop := Watch(int(open(t, path).Fd()))
	defer stop()
	process.Lock()            // so that the events are not read
	for i := range n + 1000 { // events of one kind in a row would be one
		fd, err := unix.Open(paths[i%2], unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd) // its event is lost
	process.Unlock()
	<-events
}
