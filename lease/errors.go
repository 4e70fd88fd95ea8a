package lease

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/internal/cause"
)

// ErrBusy is what the Acquire of an [Engine] returns for a try if somebody else holds the lock or
// waits for it.
var ErrBusy = errors.New("lock is held")

var (
	errExpired  = fmt.Errorf("%w: no answer in time to keep the lease alive", fasteners.ErrLost)
	errNoEngine = fmt.Errorf("lock was not made by its constructor, or of nil: %w", fs.ErrInvalid)
)

// ContextError returns the error of a context that is done, and nil of one that is not. The error
// wraps the cause of its end, too ([context.Cause]), and tells [os.IsTimeout] of a deadline.
func ContextError(ctx context.Context) error { return cause.Of(ctx) }

// WithCause returns an error that wraps both err, the error of a context, and its cause, such as the
// last error of a server that could not be reached until then. It is err itself if cause is nil, or
// err wraps that already.
func WithCause(err, why error) error { return cause.With(err, why) }

// PathError returns err as callers of a lock see it: with what was attempted, and the name of the
// lock. It returns nil if err is nil. The path of an error is never empty: an empty name is quoted.
func PathError(op, name string, err error) error {
	switch {
	case err == nil:
		return nil
	case name == "":
		name = `""`
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}
