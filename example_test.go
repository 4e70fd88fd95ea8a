//go:build unix || windows

package fasteners_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/go-fasteners/fasteners"
)

// These stand for what a program does.
var (
	lockFile    = filepath.Join(os.TempDir(), fmt.Sprintf("fasteners-example-%d.lock", os.Getpid()))
	ctx         = context.Background()
	writeReport = func(context.Context) error { fmt.Println("written"); return nil }
	readReport  = func(context.Context) error { fmt.Println("read"); return nil }
)

func ExampleWithLock() {
	lock := fasteners.NewInterProcessLock(lockFile)

	waitCtx, cancel := context.WithTimeout(ctx, 5*time.Second) // bounds the wait, not the work
	defer cancel()
	err := fasteners.WithLock(waitCtx, lock, func(context.Context) error {
		return writeReport(ctx)
	})
	if errors.Is(err, context.DeadlineExceeded) {
		log.Print("timed out")
	}
	// Output: written
}

func ExampleInterProcessLock_Acquire() {
	lock := fasteners.NewInterProcessLock(lockFile)

	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := lock.Acquire(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("acquired:", lock.Acquired())
	if err := lock.Release(); err != nil {
		log.Print(err) // fasteners.ErrReplaced, for one
	}
	// Output: acquired: true
}

func ExampleInterProcessLock_TryAcquire() {
	lock := fasteners.NewInterProcessLock(lockFile)

	ok, err := lock.TryAcquire()
	switch {
	case err != nil:
		log.Fatal(err)
	case !ok:
		fmt.Println("another instance is running")
	default:
		defer lock.Release()
		fmt.Println("this is the only instance")
	}
	// Output: this is the only instance
}

func ExampleInterProcessReaderWriterLock() {
	lock := fasteners.NewInterProcessReaderWriterLock(lockFile)

	// Any number of readers at a time, or one writer.
	if err := fasteners.WithReadLock(ctx, lock, readReport); err != nil {
		log.Fatal(err)
	}
	if err := fasteners.WithWriteLock(ctx, lock, writeReport); err != nil {
		log.Fatal(err)
	}
	// Output:
	// read
	// written
}

func ExampleInterProcessLocked() {
	write := fasteners.InterProcessLocked(lockFile, writeReport)

	if err := write(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: written
}

func ExampleWithPollInterval() {
	lock := fasteners.NewInterProcessLock(lockFile,
		fasteners.WithPollInterval(time.Millisecond, 10*time.Millisecond),
		fasteners.WithFileMode(0o600))

	fmt.Println(fasteners.WithLock(ctx, lock, writeReport))
	// Output:
	// written
	// <nil>
}
