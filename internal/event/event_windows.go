// Package event provides named events of Windows, by which one process tells another of a release.
package event

import "golang.org/x/sys/windows"

// A Watch is one waiter's interest in one named event.
type Watch struct {
	C chan struct{} // receives after a Signal; nil if there is no event

	event, stop windows.Handle
	woken       chan bool
}

// New watches the event of that name. Each Signal wakes one Watch.
func New(name string) *Watch {
	name16, _ := windows.UTF16PtrFromString(name)
	// The right to wait can also be had for an event that another user has created, if that
	// user allows it. An error that comes with a handle says that the event existed.
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
	// The first handle in this order that is signaled ends the wait, and no other is reset
	// (WaitForMultipleObjects). So a signal that comes after Stop is left for another Watch.
	handles := []windows.Handle{w.stop, w.event}
	for {
		i, err := windows.WaitForMultipleObjects(handles, false, windows.INFINITE)
		if err != nil || i != windows.WAIT_OBJECT_0+1 {
			break
		}
		n++
		select {
		case w.C <- struct{}{}:
		default: // C already has one
		}
	}
	w.woken <- n > 0
}

// Stop ends the watch. It reports whether a Signal has woken it, and therefore no other Watch.
func (w *Watch) Stop() bool {
	if w.event == 0 {
		return false
	}
	_ = windows.SetEvent(w.stop)
	defer windows.CloseHandle(w.event)
	defer windows.CloseHandle(w.stop)
	return <-w.woken
}

// Signal wakes one Watch of the event of that name. If all of them are awake, it wakes the next
// one that begins before the last one stops. If there is none, the event does not exist, and
// Signal does nothing.
func Signal(name string) {
	name16, _ := windows.UTF16PtrFromString(name)
	event, err := windows.OpenEvent(windows.EVENT_MODIFY_STATE, false, name16)
	if err != nil {
		return
	}
	_ = windows.SetEvent(event)
	_ = windows.CloseHandle(event)
}
