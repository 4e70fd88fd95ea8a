package event

import (
	"runtime"
	"testing"

	"golang.org/x/sys/windows"
)

const name = `Local\fasteners-test`

func exists() bool {
	name16, _ := windows.UTF16PtrFromString(name)
	event, err := windows.OpenEvent(windows.SYNCHRONIZE, false, name16)
	if err != nil {
		return false
	}
	windows.CloseHandle(event)
	return true
}

// A signal wakes one of those who watch. The end of a watch tells whether it was that one,
// and the last leaves nothing behind.
func TestSignalWakesOne(t *testing.T) {
	goroutines := runtime.NumGoroutine()
	Signal(name) // nobody
	for range 100 {
		a, b := New(name), New(name)
		if a.event == 0 || b.event == 0 {
			t.Fatal("no watch")
		}
		Signal(name)
		wokenA, wokenB := false, false
		select {
		case <-a.C:
			wokenA = true
		case <-b.C:
			wokenB = true
		}
		if a.Stop() != wokenA || b.Stop() != wokenB {
			t.Fatal("the end of a watch does not tell whether it was woken")
		}
		if exists() {
			t.Fatal("the event is still there")
		}
	}
	for runtime.NumGoroutine() > goroutines { // the last may be about to end
		runtime.Gosched()
	}
}

// What comes when a watch is over is for the others.
func TestWatchTakesNothingAfterItsEnd(t *testing.T) {
	for range 100 {
		a, b := New(name), New(name)
		signalled := make(chan bool)
		go func() { Signal(name); close(signalled) }()
		if a.Stop() {
			Signal(name) // as its user must
		}
		<-b.C
		<-signalled
		b.Stop()
	}
}
