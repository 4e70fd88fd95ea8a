// Package must has what tests demand of a call: that it succeeds, fails, or blocks.
package must

import (
	"errors"
	"testing"
	"time"
)

// Go calls f in a goroutine, and returns a channel with its error.
func Go(f func() error) <-chan error {
	c := make(chan error, 1)
	go func() { c <- f() }()
	return c
}

// Succeed ends the test if err is not nil.
func Succeed(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// Fail ends the test if err does not wrap want.
func Fail(tb testing.TB, err, want error) {
	tb.Helper()
	if !errors.Is(err, want) {
		tb.Fatalf("%v, want %v", err, want)
	}
}

// Block ends the test if something can be received from c within a moment: what must not happen
// while something else goes on.
func Block[T any](tb testing.TB, what string, c <-chan T) {
	tb.Helper()
	select {
	case <-c:
		tb.Fatal(what)
	case <-time.After(50 * time.Millisecond):
	}
}
