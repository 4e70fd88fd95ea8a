// Package event provides named events of Windows, by which one process tells another of a release.
package event

import "golang.org/x/sys/windows"

// A Watch is one waiter's interest in one named event.
type Watch struct {
	C chan struct{} // receives after a Signal; nil if there is no event

	event, stop windows.Handle
	woken       chan bool
}

// New watches the event of that name. Each Signal wakes one of those who watch it.
func New(name string) *Watch {
	name16, _ := windows.UTF16PtrFromString(name)
	// The right to wait alone can be had on the event of another user, too, if that one allows it. An
	// error may come with a handle: then the event existed.
	event, _ := windows.CreateEventEx(nil, name16, 0, windows.SYNCHRONIZE)
	if event == 0 {
		return new(Watch)
	}
	stop, err := windows.CreateEvent(nil, 0, 0, nil)
	if err != nil {
		_ = windows.CloseHandle(event)
		return new(Watch)
	}
	w := &Watch{make(chan struct{}, 1), event, stop, make(chan bool)}
	go w.watch()
	return w
}

func (w *Watch) watch() {
	n := 0
	// The first in this order that is signaled ends the wait, and is the only one to be reset: a signal
	// that comes after the end is left for others (WaitForMultipleObjects).
	handles := []windows.Handle{w.stop, w.event}
	for {
		i, err := windows.WaitForMultipleObjects(handles, false, windows.INFINITE)
		if err != nil || i != windows.WAIT_OBJECT_0+1 {
			break
		}
		n++
		select {
		case w.C <- struct{}{}:
		default: // there is one to receive
		}
	}
	w.woken <- n > 0
}

// Stop ends the watch. It reports whether a Signal has woken this one, and so no other.
func (w *Watch) Stop() bool {
	if w.event == 0 {
		return false
	}
	_ = windows.SetEvent(w.stop)
	defer windows.CloseHandle(w.event)
	defer windows.CloseHandle(w.stop)
	return <-w.woken
}

// Signal wakes one of those who watch the event of that name, or the next one to come while somebody
// does. While nobody does, there is no such event.
func Signal(name string) {
	name16, _ := windows.UTF16PtrFromString(name)
	event, err := windows.OpenEvent(windows.EVENT_MODIFY_STATE, false, name16)
	if err != nil {
		return
	}
	_ = windows.SetEvent(event)
	_ = windows.CloseHandle(event)
}
