package main

import (
	"context"
	"os"
	"os/signal"
)

// contextOfSignals returns a context that is done when a signal comes that would end the process. Its
// cause is a *signalError then, and the next signal does what it did before. After stop, all do, and the
// context stays as it is.
func contextOfSignals() (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, endingSignals()...)
	stopped, ended := make(chan bool), make(chan bool)
	go func() {
		defer close(ended)
		select {
		case s := <-signals:
			signal.Stop(signals)
			cancel(&signalError{s})
		case <-stopped:
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(stopped)
		<-ended
		select {
		case s := <-signals: // that came just before
			cancel(&signalError{s})
		default:
		}
	}
}

// A signalError says that a signal has ended a wait.
type signalError struct{ signal os.Signal }

func (e *signalError) Error() string { return e.signal.String() }
