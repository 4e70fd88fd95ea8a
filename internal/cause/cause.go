// Package cause has the error of a context, with what has caused it.
package cause

import (
	"context"
	"errors"
)

// Of returns the error of a context that is done, and nil of one that is not. It wraps the cause of
// its end, too: see [context.Cause].
func Of(ctx context.Context) error {
	return With(ctx.Err(), context.Cause(ctx))
}

// With returns an error that wraps both err, the error of a context, and its cause. It is err itself
// if there is no cause, or err wraps that already.
func With(err, cause error) error {
	if err == nil || cause == nil || errors.Is(err, cause) {
		return err
	}
	return &causedError{err, cause}
}

type causedError struct{ err, cause error }

func (e *causedError) Error() string   { return e.err.Error() + ": " + e.cause.Error() }
func (e *causedError) Unwrap() []error { return []error{e.err, e.cause} }

// Timeout reports whether a deadline has ended the context, for [os.IsTimeout], which does not unwrap
// errors.
func (e *causedError) Timeout() bool { return errors.Is(e.err, context.DeadlineExceeded) }
