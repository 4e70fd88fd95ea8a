package lease

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/internal/cause"
)

// ErrBusy is what the Acquire of an [Engine] returns for a try if the lock is held, or waited for.
var ErrBusy = errors.New("lock is held")

var (
	errExpired  = fmt.Errorf("%w: no answer in time to keep the lease alive", fasteners.ErrLost)
	errNoEngine = fmt.Errorf("lock was not made by its constructor, or of nil: %w", fs.ErrInvalid)
)

// ContextError returns the error of a context that is done, and nil of one that is not. The error
// wraps the cause of its end, too ([context.Cause]), and tells [os.IsTimeout] of a deadline.
func ContextError(ctx context.Context) error { return cause.Of(ctx) }

// WithCause returns an error that wraps both err, the error of a context, and why its end was
// reached, such as the last error of a server that could not be asked until then. It is err
// itself if why is nil, or err wraps that already.
func WithCause(err, why error) error { return cause.With(err, why) }

// PathError returns err as callers of a lock see it: with what was attempted, and the name of the
// lock as Path, or what else it is about. It returns nil if err is nil.
func PathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}
