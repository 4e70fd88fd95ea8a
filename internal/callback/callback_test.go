package callback

import (
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// Run waits for the function, passes its panic on, and does without one that does not return.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		called := false
		Run(func() { time.Sleep(Patience / 2); called = true })
		if !called {
			t.Error("Run did not wait for the function")
		}
		Run(runtime.Goexit)

		errPanic := errors.New("panic")
		func() {
			defer func() {
				if p := recover(); p != errPanic {
					t.Errorf("panic with %v, want %v", p, errPanic)
				}
			}()
			Run(func() { panic(errPanic) })
			t.Error("Run has returned")
		}()

		release, end := make(chan bool), make(chan bool)
		Run(func() { <-release; close(end) })
		close(release) // which it waits for
		<-end
	})
}
