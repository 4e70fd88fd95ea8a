package wake

import (
	"context"
	"time"

	"golang.org/x/sys/windows"
)

// A Watch is one waiter's interest in one named event.
type Watch struct {
	event, over windows.Handle // 0 if there is no event
	c           chan struct{}
	woken       chan bool
}

// New watches the event of that name. Each Signal ends the wait of one process.
func New(name string) *Watch {
	name16, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return new(Watch)
	}
	// To ask for no more than the right to wait lets us use the event of somebody
	// else, where its owner allows that. An error may come with a handle: the event
	// exists.
	event, _ := windows.CreateEventEx(nil, name16, 0, windows.SYNCHRONIZE)
	if event == 0 {
		return new(Watch)
	}
	over, err := windows.CreateEvent(nil, 0, 0, nil)
	if err != nil {
		_ = windows.CloseHandle(event)
		return new(Watch)
	}
	w := &Watch{event, over, make(chan struct{}, 1), make(chan bool)}
	go w.watch()
	return w
}

func (w *Watch) watch() {
	n := 0
	// The first in this order that is signalled ends the wait, and is the only one
	// to be reset: what comes after the end is left for others.
	handles := []windows.Handle{w.over, w.event}
	for {
		i, err := windows.WaitForMultipleObjects(handles, false, windows.INFINITE)
		if err != nil || i != windows.WAIT_OBJECT_0+1 {
			break
		}
		n++
		select {
		case w.c <- struct{}{}:
		default: // it has one to see
		}
	}
	w.woken <- n > 0
}

// Wait returns true after an event, also one since the last call, and false after d or when ctx is
// done.
func (w *Watch) Wait(ctx context.Context, d time.Duration) bool { return wait(ctx, d, w.c) }

// Moved reports whether an event since the last call may mean that the file has another name now, or
// none.
func (w *Watch) Moved() bool { return false }

// Complete reports whether all who release a lock make an event. Those do not who die, and other
// programs.
func (w *Watch) Complete() bool { return false }

// Sleep is time.Sleep.
func Sleep(d time.Duration) { time.Sleep(d) }

// Stop ends the watch, and reports whether it has had a Signal, which then no other watch has had.
func (w *Watch) Stop() bool {
	if w.event == 0 {
		return false
	}
	_ = windows.SetEvent(w.over)
	defer windows.CloseHandle(w.event)
	defer windows.CloseHandle(w.over)
	return <-w.woken
}

// Signal wakes one of those who watch the event of that name, or the next to come as long
// as one does. When nobody does, there is no such event.
func Signal(name string) {
	name16, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return
	}
	event, err := windows.OpenEvent(windows.EVENT_MODIFY_STATE, false, name16)
	if err != nil {
		return
	}
	_ = windows.SetEvent(event)
	_ = windows.CloseHandle(event)
}
