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

// A signal wakes one Watch. Stop tells which one, and the last Stop leaves no event behind.
func TestSignalWakesOne(t *testing.T) {
	goroutines := runtime.NumGoroutine()
	Signal(name) // wakes nothing
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
	for runtime.NumGoroutine() > goroutines { // the last goroutine may be about to end
		runtime.Gosched()
	}
}

// A signal that arrives after Stop wakes another Watch.
func TestWatchTakesNothingAfterItsEnd(t *testing.T) {
	for range 100 {
		a, b := New(name), New(name)
		signalled := make(chan bool)
		go func() { Signal(name); close(signalled) }()
		if a.Stop() {
			Signal(name) // as the user of event must
		}
		<-b.C
		<-signalled
		b.Stop()
	}
}
