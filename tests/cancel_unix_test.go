//go:build unix

package tests

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners/internal/stress"
)

var cancellations = flag.Int64("cancellations", 0,
	"how many waiters TestCancelStressAmongProcesses cancels; by default, as many as it can in a short time")

// Four processes wait for a lock, and give up at random moments, some of them just as they acquire
// it. There are never two holders, no process hangs, and nothing is left behind.
func TestCancelStressAmongProcesses(t *testing.T) {
	t.Parallel()
	path := lockPath(t)
	shared, err := mapSharedPage(path + ".page")
	must(t, err)
	var procs []*process
	for range 4 {
		procs = append(procs, startHelper(t, cancelHelper, path, strconv.FormatInt(*cancellations, 10)))
	}
	for _, p := range procs {
		p.say("go")
	}
	for _, p := range procs {
		p.expect("nothing left")
	}
	t.Logf("%d cancellations, %d grants", shared.cancellations.Load(), shared.grants.Load())
	if n := shared.violations.Load(); n > 0 {
		t.Errorf("there were two holders %d times", n)
	}
	writer(path).mustTry(t, true)
}

// A sharedPage is memory that the processes of a test share.
type sharedPage struct {
	holders                           atomic.Int32 // a reader counts 1, a writer writerWeight
	violations, grants, cancellations atomic.Int64
}

const writerWeight = 1000

func mapSharedPage(path string) (*sharedPage, error) {
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
	return (*sharedPage)(unsafe.Pointer(&b[0])), nil
}

var cancelHelper = newHelper("cancel", func(in *bufio.Reader, args []string) error {
	path := args[0]
	want, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return err
	}
	shared, err := mapSharedPage(path + ".page")
	if err != nil {
		return err
	}
	if _, err := in.ReadString('\n'); err != nil {
		return err
	}
	go exitAtEOF(in)
	before := resources(path)
	var g group
	for i := range 6 {
		v := variants(path)[i%3]
		g.Go(func() error {
			for range stress.Rounds() {
				if err := shared.holdOrGiveUp(v); err != nil {
					return err
				}
			}
			for shared.cancellations.Load() < want {
				if err := shared.holdOrGiveUp(v); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	waitForUsage(path, before)
	fmt.Println("nothing left")
	return nil
})

func (p *sharedPage) holdOrGiveUp(v variant) error {
	d := rand.N(2 * time.Millisecond)
	if rand.N(2) == 0 {
		d = rand.N(200 * time.Microsecond) // as long as a hold, so that the lock is often granted then
	}
	ctx, cancel := context.WithTimeout(background, d)
	err := v.acquire(ctx)
	cancel()
	if errors.Is(err, context.DeadlineExceeded) {
		p.cancellations.Add(1)
		return nil
	}
	if err != nil {
		return err
	}
	weight := int32(writerWeight)
	if v.shared {
		weight = 1
	}
	if n := p.holders.Add(weight); n > writerWeight {
		p.violations.Add(1)
	}
	if rand.N(3) == 0 {
		time.Sleep(rand.N(300 * time.Microsecond))
	}
	p.holders.Add(-weight)
	p.grants.Add(1)
	return v.release()
}
