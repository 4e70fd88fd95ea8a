package fasteners

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/go-fasteners/fasteners/internal/cause"
	"github.com/go-fasteners/fasteners/internal/locktable"
	"github.com/go-fasteners/fasteners/internal/printable"
)

var (
	// ErrNotAcquired is wrapped by the error returned when releasing or downgrading a lock that
	// is not held, or asking for its File. Nothing has changed then.
	ErrNotAcquired = errors.New("lock is not acquired")

	// ErrReplaced is wrapped by the error returned when releasing a lock whose path no longer
	// names the locked file: the file was removed or replaced while the lock was held, or the
	// path is relative and the current directory has changed ([os.Chdir]). The lock has been
	// released, but another process may have held a lock on the new file at the same time. It
	// wraps [ErrLost].
	ErrReplaced error = replacedError{}

	// ErrLost is wrapped by the cause of the end of a hold's context if somebody else may have
	// acquired the lock meanwhile. [ErrReplaced] wraps it.
	ErrLost = errors.New("lock was lost")

	errNilArgument    = fmt.Errorf("fasteners: nil lock or function: %w", fs.ErrInvalid)
	errOwnedByProcess = fmt.Errorf("locks belong to processes here: %w", errors.ErrUnsupported)
)

type replacedError struct{}

func (replacedError) Error() string { return "lock file was removed or replaced while locked" }

func (replacedError) Unwrap() error { return ErrLost }

// A HeldError is wrapped by the error of an acquire whose wait for the lock was ended by its
// context or by [WithTimeout]: somebody else has held the lock. An error of the function that
// [WithLock] calls does not wrap one, unless it is from a wait for another lock.
type HeldError struct {
	// Holders are those who held the lock, or some of them, as far as they could be found out
	// without delay. There may be none.
	Holders []Holder

	// Err is the error of the context, and wraps its cause, too: see [context.Cause].
	Err error
}

func (e *HeldError) Error() string {
	return "held by " + describe(e.Holders) + ": " + e.Err.Error()
}

// Unwrap returns e.Err.
func (e *HeldError) Unwrap() error { return e.Err }

// Timeout reports whether a deadline or [WithTimeout] has ended the wait, for [os.IsTimeout].
func (e *HeldError) Timeout() bool { return errors.Is(e.Err, context.DeadlineExceeded) }

// An unprintableError wraps a PathError whose path is not safe to print. The path may come from a
// directory where others name files.
type unprintableError struct{ err *fs.PathError }

func (e *unprintableError) Error() string { return printable.Text(e.err.Error()) }

func (e *unprintableError) Unwrap() error { return e.err }

// Timeout is for os.IsTimeout, which does not unwrap.
func (e *unprintableError) Timeout() bool { return e.err.Timeout() }

// waitError returns the error of an acquire as its caller sees it.
//
//go:noinline
func waitError(ctx context.Context, err error) error {
	if err == nil || ctx == nil || ctx.Err() == nil {
		return err
	}
	var wait *locktable.WaitError
	switch {
	case err == ctx.Err():
		return cause.Of(ctx)
	case errors.As(err, &wait):
		return &HeldError{Holders: holdersFor(ctx, wait.ID, wait.Holders), Err: cause.Of(ctx)}
	}
	return err
}
