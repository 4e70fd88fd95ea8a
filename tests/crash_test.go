//go:build unix || windows

package tests

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"

	"github.com/go-fasteners/fasteners/internal/stress"
)

// However the holder dies, a waiter acquires the lock; and a waiter that dies delays nobody.
func TestReleasedOnDeath(t *testing.T) {
	t.Parallel()
	for _, variant := range variantNames {
		for _, waitMode := range waitModes {
			t.Run(variant+"/"+waitMode, func(t *testing.T) {
				path := lockPath(t)
				holder := startHolder(t, path, variant)
				var waiters []*process
				for range 3 {
					waiters = append(waiters, startWaiter(t, path, "write", waitMode))
				}
				waiters[1].kill()
				w := writer(path)
				done := w.goAcquire(t, testContext(t, waitMode))
				holder.kill()
				// The order in which the waiters acquire the lock is not specified.
				var wg sync.WaitGroup
				for _, p := range []*process{waiters[0], waiters[2]} {
					wg.Go(func() { p.expect("held"); p.kill() })
				}
				must(t, <-done)
				w.mustRelease(t)
				wg.Wait()
			})
		}
	}
}

// A child process of the holder does not keep the lock when the holder dies.
func TestNotInheritedByChildren(t *testing.T) {
	path := lockPath(t)
	in, stop, err := os.Pipe() // which outlives the parent
	must(t, err)
	defer in.Close()
	defer stop.Close()
	cmd := helperCommand(parentHelper, path)
	cmd.Stdin = in
	p := startWithInput(t, cmd)
	p.expect("held")
	pid := p.number()
	p.kill()
	v := exclusive(path)
	v.mustAcquire(t) // blocks forever if the child has the lock
	v.mustRelease(t)
	child, err := os.FindProcess(pid)
	must(t, err)
	must(t, child.Kill()) // it was still alive
}

var parentHelper = newHelper("parent", func(in *bufio.Reader, args []string) error {
	if err := exclusive(args[0]).acquire(background); err != nil {
		return err
	}
	cmd := helperCommand(idleHelper)
	cmd.Stdin = os.Stdin
	if err := cmd.Start(); err != nil {
		return err
	}
	fmt.Println("held")
	fmt.Println(cmd.Process.Pid)
	_, err := in.ReadString('\n')
	return err
})

// idleHelper does nothing until its input ends.
var idleHelper = newHelper("idle", func(in *bufio.Reader, _ []string) error {
	_, err := io.Copy(io.Discard, in)
	return err
})

var exitHelper = newHelper("exit", func(*bufio.Reader, []string) error { return nil })

// The only user of a lock never finds it held, although its process starts children all the time,
// which inherit the descriptors of the process until they execute another program.
func TestForkExecRace(t *testing.T) {
	v := exclusive(lockPath(t))
	stop := make(chan bool)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := helperCommand(exitHelper).Run(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range stress.Rounds() {
		ok, err := v.try()
		if !ok || err != nil {
			t.Errorf("try: %v, %v", ok, err)
			break
		}
		if err := v.release(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
}
