//go:build unix || windows

package tests

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/internal/stress"
)

// needReplaceableFiles skips the test where a file cannot be removed or replaced while it is open.
func needReplaceableFiles(t *testing.T) {
	t.Helper()
	if !filesCanBeReplacedWhileOpen {
		t.Skip("an open file cannot be removed or moved here")
	}
}

// replaceFile replaces the file that path names by a new one.
func replaceFile(path string) error {
	if err := os.WriteFile(path+".new", nil, 0o666); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// If the lock file of a holder is replaced, a waiter acquires the lock on the new file, and the
// holder learns of it when it releases the lock.
func TestReplacedWhileHeld(t *testing.T) {
	t.Parallel()
	replacements := map[string]func(path string) error{
		"removed":  os.Remove,
		"moved":    func(path string) error { return os.Rename(path, path+".old") },
		"replaced": replaceFile,
		"directory moved": func(path string) error {
			return os.Rename(filepath.Dir(path), filepath.Dir(path)+".old")
		},
	}
	for name, replace := range replacements {
		for _, variant := range variantNames {
			t.Run(name+"/"+variant, func(t *testing.T) {
				needReplaceableFiles(t)
				path := filepath.Join(t.TempDir(), "dir", "lock")
				v, other, w := variantNamed(path, variant), writer(path), exclusive(path)
				v.mustAcquire(t)
				done := w.goAcquire(t, cancelable(t))
				must(t, replace(path))
				must(t, <-done)
				other.mustTry(t, false)
				checkError(t, v.release(), "release", path, fasteners.ErrReplaced)
				checkError(t, v.release(), "release", path, fasteners.ErrNotAcquired)
				other.mustTry(t, false)
				w.mustRelease(t)
				other.mustTry(t, true)
			})
		}
	}
	for _, variant := range variantNames {
		t.Run("moved, a directory in its place/"+variant, func(t *testing.T) {
			needReplaceableFiles(t)
			// In one step, so that the waiter cannot create a file in between.
			dir := t.TempDir()
			must(t, os.Mkdir(filepath.Join(dir, "a"), 0o777))
			must(t, os.MkdirAll(filepath.Join(dir, "b", "lock"), 0o777))
			current, next := filepath.Join(dir, "current"), filepath.Join(dir, "next")
			must(t, os.Symlink("a", current))
			must(t, os.Symlink("b", next))
			path := filepath.Join(current, "lock")
			v, other, w := variantNamed(path, variant), writer(path), exclusive(path)
			v.mustAcquire(t)
			done := w.goAcquire(t, cancelable(t))
			must(t, os.Rename(next, current))
			if ok, err := other.try(); ok || err == nil {
				t.Errorf("trying to lock a directory: %v, %v", ok, err)
			}
			if err := <-done; err == nil {
				t.Error("a directory was locked")
			}
			checkError(t, v.release(), "release", path, fasteners.ErrReplaced)
		})
	}
}

// If the lock file is removed between two acquires through one handle, the handle holds locks on
// two files. It releases the first lock first.
func TestHoldsOnTwoFiles(t *testing.T) {
	needReplaceableFiles(t)
	for _, variant := range variantNames {
		t.Run(variant, func(t *testing.T) {
			path := lockPath(t)
			v := variantNamed(path, variant)
			v.mustAcquire(t)
			must(t, os.Remove(path))
			v.mustAcquire(t)
			checkError(t, v.release(), "release", path, fasteners.ErrReplaced)
			writer(path).mustTry(t, false) // the second lock is still held
			v.mustRelease(t)
			checkError(t, v.release(), "release", path, fasteners.ErrNotAcquired)
			writer(path).mustTry(t, true)
			for resources(path).lockFile > 0 { // hangs if a descriptor leaks
				time.Sleep(time.Millisecond)
			}
		})
	}
}

// A waiter whose file was replaced acquires the lock on the new file, which is free, even if the
// holder of the old file, or a goroutine that waits for it in the kernel, stays forever.
func TestReplacedWhileQueued(t *testing.T) {
	t.Parallel()
	needReplaceableFiles(t)
	for _, behind := range []string{"holder", "leader with background", "leader with cancelable"} {
		t.Run(behind, func(t *testing.T) {
			path := lockPath(t)
			must(t, os.WriteFile(path, nil, 0o666))
			other := path + ".other"
			must(t, os.Link(path, other))
			switch behind {
			case "holder":
				h := exclusive(path)
				h.mustAcquire(t)
				defer h.release()
			case "leader with background":
				startHolder(t, path, "exclusive")
				exclusive(path).goAcquire(t, background)
			case "leader with cancelable":
				startHolder(t, path, "exclusive")
				exclusive(path).goAcquire(t, cancelable(t))
			}
			// The second waiter uses another path of the file. Its removal concerns only that
			// waiter, which is behind the first one in the queue.
			first, second := exclusive(path), exclusive(other)
			done := first.goAcquire(t, cancelable(t))
			doneByOther := second.goAcquire(t, cancelable(t))
			must(t, os.Remove(other))
			must(t, <-doneByOther)
			second.mustRelease(t)

			if behind != "holder" {
				return // the leader may be the first to acquire the new lock, and keeps it
			}
			must(t, os.Rename(path, path+".old"))
			exclusive(path).mustTry(t, true) // a newcomer does not wait for the old file
			must(t, <-done)
		})
	}
}

// Several processes lock a file that is removed and renamed all the time. A holder whose file was
// replaced may not be the only one, which its release reports. But the holds whose release reports
// nothing do not overlap: during all of such a hold, the path named the locked file.
func TestReplacementStress(t *testing.T) {
	t.Parallel()
	needReplaceableFiles(t)
	replaced, others := 0, 0
	for replaced == 0 || others == 0 { // on a busy machine there may be only one kind of holds at first
		r, o := replaceHeldFile(t, lockPath(t))
		replaced, others = replaced+r, others+o
	}
	t.Logf("%d holds of a replaced file, %d others", replaced, others)
}

// replaceHeldFile makes processes lock a file that is replaced meanwhile, and returns how many of
// their holds were of a file that was replaced during the hold, and how many were not.
func replaceHeldFile(t *testing.T, path string) (replaced, others int) {
	t.Helper()
	log := newEventLog(t)
	for i := range 4 {
		log.start(t, helperCommand(replacedHelper, path, strconv.Itoa(i)))
	}
	stop := make(chan bool)
	var wg sync.WaitGroup
	wg.Go(func() { replaceUntil(stop, path) })

	type interval struct{ from, to int }
	var unreplaced []interval // the holds during which the file was not replaced
	last := map[string]interval{}
	events := 0
	log.run(t, func(event []string) {
		events++
		goroutine := event[1]
		switch event[0] {
		case "acquired":
			last[goroutine] = interval{from: events}
		case "releasing":
			last[goroutine] = interval{last[goroutine].from, events}
		case "released":
			unreplaced = append(unreplaced, last[goroutine])
		case "replaced":
			replaced++
		default:
			t.Fatalf("unknown event %q", event)
		}
	})
	close(stop)
	wg.Wait()
	slices.SortFunc(unreplaced, func(a, b interval) int { return a.from - b.from })
	for i := 1; i < len(unreplaced); i++ {
		if unreplaced[i].from < unreplaced[i-1].to {
			t.Errorf("two holders: %v and %v", unreplaced[i-1], unreplaced[i])
		}
	}
	return replaced, len(unreplaced)
}

// replaceUntil removes, renames and replaces the file until stop is closed.
func replaceUntil(stop <-chan bool, path string) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-time.After(rand.N(2 * time.Millisecond)):
		}
		switch i % 3 {
		case 0:
			os.Remove(path)
		case 1:
			os.Rename(path, path+".old")
		case 2:
			replaceFile(path)
		}
	}
}

var replacedHelper = newHelper("replaced", func(in *bufio.Reader, args []string) error {
	return logReplacedHolds(in, args, false)
})

// A holder may remove the lock file just before it releases the lock. All waiters, whatever they
// have open, start over with the next file, and there are never two holders.
func TestRemovedByHolder(t *testing.T) {
	t.Parallel()
	needReplaceableFiles(t)
	path := lockPath(t)
	log := newEventLog(t)
	for i := range 4 {
		log.start(t, helperCommand(removerHelper, path, strconv.Itoa(i)))
	}
	holders := 0
	log.run(t, func(event []string) {
		switch event[0] {
		case "acquired":
			holders++
		case "releasing":
			holders--
		default:
			t.Fatalf("unknown event %q", event)
		}
		if holders > 1 {
			t.Errorf("%d holders", holders)
		}
	})
}

var removerHelper = newHelper("remover", func(in *bufio.Reader, args []string) error {
	return logReplacedHolds(in, args, true)
})

// logReplacedHolds makes four goroutines hold the lock again and again, and log it. If remove is
// set, they remove the lock file at the end of every other hold. Otherwise somebody else does, and
// they log what their release reports.
func logReplacedHolds(in *bufio.Reader, args []string, remove bool) error {
	path, process := args[0], args[1]
	if err := waitForStart(in); err != nil {
		return err
	}
	var g group
	for i := range 4 {
		goroutine := process + "." + strconv.Itoa(i)
		v := exclusive(path)
		if i%2 == 1 {
			v = writer(path)
		}
		g.Go(func() error {
			for j := range stress.Rounds() {
				if err := logReplacedHold(v, path, goroutine, j, remove); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func logReplacedHold(v variant, path, goroutine string, n int, remove bool) error {
	ctx, cancel := waitContext(waitModes[n/2%2])
	err := v.acquire(ctx)
	cancel()
	if err != nil {
		return err
	}
	fmt.Println("acquired", goroutine)
	runtime.Gosched()
	fmt.Println("releasing", goroutine)
	if remove {
		removed := n%2 == 0
		if removed {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
		err := v.release()
		if removed && errors.Is(err, fasteners.ErrReplaced) || !removed && err == nil {
			return nil
		}
		return fmt.Errorf("release of hold %d: %v", n, err)
	}
	switch err := v.release(); {
	case err == nil:
		fmt.Println("released", goroutine)
	case errors.Is(err, fasteners.ErrReplaced):
		fmt.Println("replaced", goroutine)
	default:
		return err
	}
	return nil
}
