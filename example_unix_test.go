//go:build unix

package fasteners_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/go-fasteners/fasteners"
)

// On Windows the file cannot be removed.
func ExampleErrReplaced() {
	lock := fasteners.NewInterProcessLock(lockFile)

	err := fasteners.WithLock(ctx, lock, func(ctx context.Context) error {
		return os.Remove(lockFile) // do not do this
	})
	fmt.Println(errors.Is(err, fasteners.ErrReplaced))
	// Output: true
}

// The context of the function ends the command if the lock is lost.
func Example_command() {
	lock := fasteners.NewInterProcessLock(lockFile)

	err := fasteners.WithLock(ctx, lock, func(ctx context.Context) error {
		cmd := exec.CommandContext(ctx, "echo", "hello") // killed if the lock is lost
		cmd.Stdout = os.Stdout
		return cmd.Run()
	})

	fmt.Println(err)
	// Output:
	// hello
	// <nil>
}
