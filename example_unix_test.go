//go:build unix

package fasteners_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/go-fasteners/fasteners"
)

// On Windows a file cannot be removed while its lock is held.
func ExampleErrReplaced() {
	lock := fasteners.NewInterProcessLock(lockFile)

	err := fasteners.WithLock(ctx, lock, func(ctx context.Context) error {
		return os.Remove(lockFile) // do not do this
	})
	fmt.Println(errors.Is(err, fasteners.ErrReplaced))
	// Output: true
}
