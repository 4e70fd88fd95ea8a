//go:build unix || windows

package fasteners_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"log/slog"
	"os"
	"time"

	"github.com/go-fasteners/fasteners"
)

// These stand for what a program has and does. The files are beside the test binary: go test
// removes that folder.
var (
	lockFile    = os.Args[0] + ".lock"
	dataFile    = os.Args[0] + ".json"
	ctx         = context.Background()
	writeReport = func(context.Context) error { fmt.Println("written"); return nil }
	readReport  = func(context.Context) error { fmt.Println("read"); return nil }
	update      = func(data []byte) []byte { return append(data, '.') }
)

func ExampleWithLock() {
	lock := fasteners.NewInterProcessLock(lockFile, fasteners.WithTimeout(5*time.Second))

	err := fasteners.WithLock(ctx, lock, func(ctx context.Context) error {
		return writeReport(ctx)
	})
	var held *fasteners.HeldError
	if errors.As(err, &held) {
		log.Print(err) // acquire report.lock: held by process 4711 (backup) for 12s: context deadline exceeded
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
		log.Print(err) // fasteners.ErrReplaced, for example
	}
	// Output: acquired: true
}

func ExampleInterProcessLock_TryAcquire() {
	lock := fasteners.NewInterProcessLock(lockFile)

	ok, err := lock.TryAcquire()
	if err != nil {
		log.Fatal(err)
	}
	if !ok {
		log.Fatal("another instance is running")
	}
	defer lock.Release()
	fmt.Println("this is the only instance")
	// Output: this is the only instance
}

// A lock file beside the data, and a rename, so that no reader ever finds half of the data.
func Example_dataFile() {
	lock := fasteners.NewInterProcessLock(dataFile + ".lock")

	err := fasteners.WithLock(ctx, lock, func(context.Context) error {
		data, err := os.ReadFile(dataFile)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.WriteFile(dataFile+".new", update(data), 0o666); err != nil {
			return err
		}
		return os.Rename(dataFile+".new", dataFile)
	})

	data, _ := os.ReadFile(dataFile)
	fmt.Println(string(data), err)
	os.Remove(dataFile)
	os.Remove(dataFile + ".lock")
	// Output: . <nil>
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

func ExampleWithWaitNotice() {
	lock := fasteners.NewInterProcessLock(lockFile,
		fasteners.WithWaitNotice(time.Second, func(holders []fasteners.Holder) {
			fmt.Fprintln(os.Stderr, "waiting for the report, locked by", holders)
		}),
		fasteners.WithLogger(slog.Default())) // or both in the log

	fmt.Println(fasteners.WithLock(ctx, lock, writeReport))
	// Output:
	// written
	// <nil>
}

func ExampleInterProcessLock_Holders() {
	lock := fasteners.NewInterProcessLock(lockFile)
	fmt.Println(lock.Holders())
	err := fasteners.WithLock(ctx, lock, func(context.Context) error {
		holders, err := lock.Holders()
		for _, h := range holders {
			log.Print(h) // this process for 12s
			fmt.Println(h.PID == os.Getpid())
		}
		return err
	})
	fmt.Println(err)
	// Output:
	// [] <nil>
	// true
	// <nil>
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
