package wake

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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
			events, stop := Watch(int(f.Fd()))
			if events == nil {
				t.Fatal("no events")
			}
			others, stopOther := Watch(int(other.Fd()))
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
	a, stopA := Watch(int(f.Fd()))
	b, stopB := Watch(int(f.Fd()))
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
		_, stop := Watch(int(f.Fd()))
		if instances(t) != 1 {
			t.Fatalf("%d inotify instances while watching", instances(t))
		}
		stop()
		for instances(t) > 0 { // for ever, if it does not go
			time.Sleep(time.Millisecond)
		}
		events, stop := Watch(int(f.Fd()))
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
