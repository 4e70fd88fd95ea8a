//go:build unix

package cli

import (
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func endingSignals() (all []os.Signal) {
	for _, s := range []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM} {
		if !signal.Ignored(s) {
			all = append(all, s)
		}
	}
	return all
}

func number(s os.Signal) int { return int(s.(syscall.Signal)) }

// dieOf does nothing after SIGQUIT, at which the runtime would print the stacks
// of all goroutines.
func dieOf(s os.Signal) {
	if s == unix.SIGQUIT {
		return
	}
	signal.Reset(s)
	if unix.Kill(os.Getpid(), s.(syscall.Signal)) == nil {
		time.Sleep(time.Second) // another thread may be the one to get it
	}
}
