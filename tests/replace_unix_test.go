//go:build unix

package tests

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners"
)

// A waiter starts over as soon as it finds that the path does not name its file any more, not only
// when the lock on that file is free.
func TestReplacedWhileWaitingForAnotherProcess(t *testing.T) {
	t.Parallel()
	for _, variant := range variantNames {
		for _, waitMode := range waitModes {
			path := lockPath(t)
			v := variantNamed(path, variant)
			startHolder(t, path, "exclusive")
			done := v.goAcquire(t, testContext(t, waitMode))
			must(t, os.Rename(path, path+".old"))
			must(t, <-done)
			v.mustRelease(t)
		}
	}
}

func TestReplacedBySymlinkLoop(t *testing.T) {
	for _, variant := range variantNames {
		path := lockPath(t)
		v := variantNamed(path, variant)
		v.mustAcquire(t)
		must(t, os.Remove(path))
		must(t, os.Symlink(path, path))
		checkError(t, v.release(), "release", path, fasteners.ErrReplaced)
	}
}

// Many handles have cached which file the path names, and the file is moved.
func TestCachedPathIsVerified(t *testing.T) {
	path := lockPath(t)
	var all []variant
	for range 200 {
		v := exclusive(path)
		v.mustAcquire(t)
		v.mustRelease(t)
		all = append(all, v)
	}
	must(t, os.Rename(path, path+".old"))
	h := exclusive(path)
	h.mustAcquire(t)
	for _, v := range all {
		v.mustTry(t, false)
	}
	if u := resources(path); u.lockFile > 1 {
		t.Errorf("%d descriptors of the lock file", u.lockFile)
	}
	h.mustRelease(t)
}

// Many goroutines wait for a holder whose file is replaced. The new file is opened once, not once
// for each goroutine: the process may not open that many files.
func TestManyWaitersOnReplacedFile(t *testing.T) {
	t.Parallel()
	p := startHelper(t, replacedWaitersHelper, lockPath(t))
	p.expect("all acquired")
}

var replacedWaitersHelper = newHelper("waiters on a replaced file", func(in *bufio.Reader, args []string) error {
	const waiters, maxFiles = 500, 64
	path := args[0]
	go exitAtEOF(in)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: maxFiles, Max: maxFiles}); err != nil {
		return err
	}
	holder := exclusive(path)
	if err := holder.acquire(background); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	var g group
	for range waiters {
		v := exclusive(path)
		g.Go(func() error { return v.hold(ctx) })
	}
	waitUntilWaiting(waiters)
	if err := replaceFile(path); err != nil {
		return err
	}
	if err := holder.release(); !errors.Is(err, fasteners.ErrReplaced) {
		return fmt.Errorf("release: %v", err)
	}
	if err := g.Wait(); err != nil {
		return err
	}
	fmt.Println("all acquired")
	return nil
})
