// Package callback calls functions of users from places where they must do no harm.
package callback

import (
	"sync/atomic"
	"time"
)

// Patience is for how long Run waits for a function.
const Patience = 100 * time.Millisecond

// Run calls f, in a goroutine of its own, and waits until it has returned, but not for longer
// than Patience: f may wait for what only the caller of Run can give, such as the lock that the
// caller has acquired and cannot release before Run returns. Then f goes on by itself.
//
// If f panics, Run panics with the same value; if f does so later, nobody can recover from that.
func Run(f func()) {
	var over atomic.Bool // f has returned or panicked, or Run has given up; the first of them sets it
	returned := make(chan any, 1)
	go func() {
		panicked := true
		defer func() {
			if !panicked {
				return
			}
			p := recover() // nil after runtime.Goexit
			if over.CompareAndSwap(false, true) {
				returned <- p
			} else if p != nil {
				panic(p)
			}
		}()
		f()
		panicked = false
		if over.CompareAndSwap(false, true) {
			returned <- nil
		}
	}()
	timer := time.NewTimer(Patience)
	defer timer.Stop()
	select {
	case p := <-returned:
		if p != nil {
			panic(p)
		}
	case <-timer.C:
		if !over.CompareAndSwap(false, true) {
			if p := <-returned; p != nil {
				panic(p)
			}
		}
	}
}
