//go:build unix || windows

package tests

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/internal/stress"
)

// While nobody writes, no try of a reader fails, whatever other readers do.
func TestConcurrentReaderTries(t *testing.T) {
	v := reader(lockPath(t))
	var g group
	for range 8 {
		g.Go(func() error {
			for range stress.Rounds() {
				ok, err := v.try()
				if !ok || err != nil {
					return fmt.Errorf("try: %v, %w", ok, err)
				}
				if err := v.release(); err != nil {
					return err
				}
			}
			return nil
		})
	}
	must(t, g.Wait())
}

// A writer that waits for readers of other processes is not overtaken by new readers of any
// process.
func TestWriterNotOvertaken(t *testing.T) {
	t.Parallel()
	for _, waitMode := range waitModes {
		t.Run(waitMode, func(t *testing.T) {
			path := lockPath(t)
			holder := startHolder(t, path, "read")
			ours := reader(path)
			w := startWaiter(t, path, "write", waitMode)
			ours.mustBecome(t, false)
			// The process of the holder admits readers without asking the kernel, but not for long.
			for holder.tryAgain() {
			}
			done := ours.goAcquire(t, cancelable(t))
			holder.release()
			w.expect("held")
			w.release()
			must(t, <-done)
			ours.mustRelease(t)
		})
	}
	t.Run("writer dies", func(t *testing.T) {
		path := lockPath(t)
		startHolder(t, path, "read")
		ours := reader(path)
		w := startWaiter(t, path, "write", "cancelable")
		ours.mustBecome(t, false)
		done := ours.goAcquire(t, cancelable(t))
		w.kill()
		must(t, <-done)
		ours.mustRelease(t)
	})
	t.Run("writer is canceled", func(t *testing.T) {
		path := lockPath(t)
		startHolder(t, path, "read")
		ours := reader(path)
		ours.mustAcquire(t)
		w := startHelper(t, cancelableWriterHelper, path)
		w.expect("waiting")
		reader(path).mustBecome(t, false) // although a reader of this process holds the lock
		done := ours.goAcquire(t, cancelable(t))
		w.finish()
		must(t, <-done) // while other readers still hold the lock
		ours.mustRelease(t)
		ours.mustRelease(t)
	})
}

// cancelableWriterHelper waits for the write lock until its input ends.
var cancelableWriterHelper = newHelper("cancelable writer", func(in *bufio.Reader, args []string) error {
	ctx := cancelAtEOF(in)
	fmt.Println("waiting")
	if err := writer(args[0]).acquire(ctx); !errors.Is(err, context.Canceled) {
		return fmt.Errorf("error is %v", err)
	}
	return nil
})

// With WithReaderPreference, new readers overtake a waiting writer.
func TestReaderPreference(t *testing.T) {
	t.Parallel()
	path := lockPath(t)
	startHolder(t, path, "read")
	ctx, cancel := context.WithCancel(background)
	done := writer(path, fasteners.WithReaderPreference()).goAcquire(t, ctx)
	for range stress.Rounds() {
		mustTryInProcess(t, path, "read", true)
	}
	cancel()
	checkError(t, <-done, "acquire", path, context.Canceled)
}

// A write lock becomes a read lock without an instant at which another writer can acquire the lock,
// and then waiting readers acquire it.
func TestDowngrade(t *testing.T) {
	path := lockPath(t)
	l := fasteners.NewInterProcessReaderWriterLock(path)
	checkError(t, l.Downgrade(), "downgrade", path, fasteners.ErrNotAcquired)
	must(t, l.AcquireReadLock(background))
	checkError(t, l.Downgrade(), "downgrade", path, fasteners.ErrNotAcquired)
	must(t, l.ReleaseReadLock())

	must(t, l.AcquireWriteLock(background))
	r, w := reader(path), writer(path)
	ourReader := r.goAcquire(t, background)
	ourWriter := w.goAcquire(t, background)
	otherReader := startWaiter(t, path, "read", "cancelable")
	otherWriter := startWaiter(t, path, "write", "background")
	must(t, l.Downgrade())
	checkError(t, l.ReleaseWriteLock(), "release", path, fasteners.ErrNotAcquired)
	must(t, <-ourReader)
	writer(path).mustTry(t, false)
	must(t, l.ReleaseReadLock())
	checkError(t, l.ReleaseReadLock(), "release", path, fasteners.ErrNotAcquired)
	otherReader.kill() // it may hold the lock, or wait for the writer that has locked pending
	select {
	case err := <-ourWriter:
		t.Errorf("a writer holds the lock with a reader (error %v)", err)
	default:
	}
	r.mustRelease(t)
	otherWriter.kill()
	must(t, <-ourWriter)
	w.mustRelease(t)
}

// Several processes downgrade all the time. What a writer has read is unchanged when it goes on as
// a reader.
func TestDowngradeStress(t *testing.T) {
	t.Parallel()
	path := lockPath(t)
	counter := newCounter(t)
	log := newEventLog(t)
	for range 4 {
		log.start(t, helperCommand(downgradeHelper, path, counter))
	}
	checkIntervals(t, log, counter)
}

var downgradeHelper = newHelper("downgrade", func(in *bufio.Reader, args []string) error {
	path, counter := args[0], args[1]
	if err := waitForStart(in); err != nil {
		return err
	}
	var g group
	for range 4 {
		l := fasteners.NewInterProcessReaderWriterLock(path)
		g.Go(func() error {
			for range stress.Rounds() {
				if err := logDowngrade(l, counter); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
})

// logDowngrade holds the write lock, then the read lock, and logs both holds.
func logDowngrade(l *fasteners.InterProcessReaderWriterLock, counter string) (err error) {
	if err := l.AcquireWriteLock(background); err != nil {
		return err
	}
	release := l.ReleaseWriteLock
	defer func() { err = errors.Join(err, release()) }() // also after an error, as others wait for the lock
	fmt.Println("acquired write")
	if err := increment(counter); err != nil {
		return err
	}
	before, err := os.ReadFile(counter)
	if err != nil {
		return err
	}
	fmt.Println("releasing write")
	if err := l.Downgrade(); err != nil {
		return err
	}
	release = l.ReleaseReadLock
	fmt.Println("acquired read")
	after, err := os.ReadFile(counter)
	if err != nil {
		return err
	}
	fmt.Println("releasing read")
	if string(after) != string(before) {
		return fmt.Errorf("counter was %s, is %s", before, after)
	}
	return nil
}
