package cli

import (
	"context"
	"os"
	"os/signal"
)

// SignalContext returns a context that is done when a signal comes that would
// end the process. Its cause names the signal then, and the next signal does
// what it did before. After stop, all do, and the context stays as it is.
func SignalContext() (ctx context.Context, stop func()) {
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

// Interruption returns the error of a program that ends because of the signal
// that has ended the context of SignalContext, or nil if none has.
func Interruption(ctx context.Context) error {
	e, ok := context.Cause(ctx).(*signalError)
	if !ok {
		return nil
	}
	return &StatusError{ExitSignalBase + number(e.signal), nil}
}

// DieOfInterruption ends the process by the signal that has ended the context
// of SignalContext, so that its parent can see that: a shell ends a loop then.
// It returns if the system cannot do that.
func DieOfInterruption(ctx context.Context) {
	if e, ok := context.Cause(ctx).(*signalError); ok {
		dieOf(e.signal)
	}
}
