//go:build unix

package fasteners_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

var cancellations = flag.Int("cancellations", 2000, "how many cancellations TestCancellationsAmongProcesses goes on for")

// A page is shared by the processes of a test.
type page struct {
	inside                            atomic.Int32 // writers
	violations, grants, cancellations atomic.Int64
}

func mapPage(path string) (*page, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Truncate(int64(os.Getpagesize())); err != nil {
		return nil, err
	}
	b, err := unix.Mmap(int(f.Fd()), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return (*page)(unsafe.Pointer(&b[0])), nil
}

// Four processes wait for a lock and give up at random moments, some of them just as the lock comes.
// There are never two holders, nobody hangs, and nothing is left behind.
func TestCancellationsAmongProcesses(t *testing.T) {
	path := lockPath(t)
	shared, err := mapPage(path + ".page")
	must(t, err)
	var procs []*process
	for range 4 {
		procs = append(procs, startHelper(t, "cancel", path, strconv.Itoa(*cancellations)))
	}
	for _, p := range procs {
		p.say("go")
	}
	for _, p := range procs {
		p.expect("nothing is left")
	}
	t.Logf("%d cancellations, %d grants", shared.cancellations.Load(), shared.grants.Load())
	if n := shared.violations.Load(); n > 0 {
		t.Errorf("%d times two holders", n)
	}
	sides(path)[2].mustTry(t, true)
}

func init() {
	helpers["cancel"] = func(in *bufio.Reader, args []string) error {
		path := args[0]
		want, err := strconv.ParseInt(args[1], 10, 64)
		if err != nil {
			return err
		}
		shared, err := mapPage(path + ".page")
		if err != nil {
			return err
		}
		if _, err := in.ReadString('\n'); err != nil {
			return err
		}
		go exitAtEnd(in)
		before := resources(path)
		var wg sync.WaitGroup
		errs := make(chan error, 6)
		for g := range cap(errs) {
			s := sides(path)[g%3]
			wg.Go(func() {
				for shared.cancellations.Load() < want {
					// Half of them as long as a hold, so that many end as the lock comes.
					d := rand.N(2 * time.Millisecond)
					if rand.N(2) == 0 {
						d = rand.N(200 * time.Microsecond)
					}
					ctx, cancel := context.WithTimeout(background, d)
					err := s.acquire(ctx)
					cancel()
					if err != nil {
						if !errors.Is(err, context.DeadlineExceeded) {
							errs <- err
							return
						}
						shared.cancellations.Add(1)
						continue
					}
					weight := int32(1000)
					if s.shared {
						weight = 1
					}
					if n := shared.inside.Add(weight); n != 1000 && n >= 1000 {
						shared.violations.Add(1)
					}
					if rand.N(3) == 0 {
						time.Sleep(rand.N(300 * time.Microsecond))
					}
					shared.inside.Add(-weight)
					shared.grants.Add(1)
					if err := s.release(); err != nil {
						errs <- err
						return
					}
				}
			})
		}
		wg.Wait()
		close(errs)
		if err := <-errs; err != nil {
			return err
		}
		settled(path, before)
		fmt.Println("nothing is left")
		return nil
	}
}
