package check

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/cli"
	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/file"
	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/worker"
)

// A property is one thing that the locks need of a file system. Try returns an
// error if it does not hold, or if it cannot be tried. No worker holds or
// requests the lock before it, nor after it if it returns no error.
type property struct {
	name  string
	means string // what a failure means
	try   func(*checker) (result, string, error)
}

var properties = []property{
	{"identity", "A removed lock file may go unnoticed, or one lock may be taken for another.",
		(*checker).identity},
	{"exclusion", "Two programs can hold a lock at the same time. It protects nothing here.",
		(*checker).exclusion},
	{"readers", "Readers do not share the lock, or do not keep writers out.",
		(*checker).readers},
	{"death", "After a crash nobody may get the lock, until somebody removes the file " +
		"or restarts the machine.",
		(*checker).death},
	{"stray close", "A program that only looks at the lock file, such as cp, can take the lock away " +
		"from its holder.",
		(*checker).strayClose},
	{"hand-off", "Programs that wait for a lock may wait forever.",
		(*checker).handOff},
	{"replaced", "If somebody removes the lock file, two programs can hold the lock, " +
		"and neither of them notices.",
		(*checker).replaced},
}

func (p property) check(c *checker) verdict {
	r, detail, err := p.try(c)
	if err == nil {
		return verdict{Name: p.name, Result: r, Detail: detail}
	}
	if c.ctx.Err() == nil {
		// The workers may hold locks, or wait for them.
		if resetErr := c.reset(); resetErr != nil {
			err = fmt.Errorf("%w; %w", err, resetErr)
		}
	}
	v := verdict{Name: p.name, Result: fail, Detail: err.Error(), Means: p.means}
	var broken *precondition
	var refused *refusal
	switch {
	case errors.As(err, &broken):
		v.Means = "The lock excludes nobody, so this could not be tried."
	case errors.As(err, &refused):
		v.Means = "The system has refused something. Programs that need the lock will fail, too."
	}
	return v
}

func (c *checker) identity() (result, string, error) {
	id := func(name string, flags int) (string, error) {
		path := c.path(name)
		f, err := os.OpenFile(path, flags, 0o666)
		if err != nil {
			return "", err
		}
		if err := f.Close(); err != nil {
			return "", err
		}
		id, err := file.Identify(path)
		return fmt.Sprintf("device %#x, file %d", id.Volume, id.File), err
	}
	first, err := id("identity", os.O_RDWR|os.O_CREATE)
	if err != nil {
		return "", "", err
	}
	other, err := id("identity2", os.O_RDWR|os.O_CREATE)
	if err != nil {
		return "", "", err
	}
	again, err := id("identity", os.O_RDWR)
	if err != nil {
		return "", "", err
	}
	switch {
	case again != first:
		return "", "", fmt.Errorf("a file has become another one after it was closed: %s, then %s",
			first, again)
	case other == first:
		return "", "", fmt.Errorf("two files have the same identity: %s", first)
	}
	return pass, "a file keeps its numbers (" + first + "), and another one has others", nil
}

func (c *checker) exclusion() (result, string, error) {
	counter := c.path("counter")
	if err := os.WriteFile(counter, []byte("000000000000"), 0o666); err != nil {
		return "", "", err
	}
	count := request{Do: "count", Counter: counter, Timeout: time.Second}
	for _, w := range c.crew.Workers {
		if err := w.Send(count); err != nil {
			return "", "", err
		}
	}
	var err error
	total, active := 0, 0
	for _, w := range c.crew.Workers {
		r, askErr := c.await(w, count.Timeout)
		if err == nil {
			err = askErr
		}
		if o := r.Other; o != nil && err == nil {
			err = fmt.Errorf("processes %d and %d have held the lock at the same time", w.PID(), o.PID)
		}
		total += r.N
		if r.N > 0 {
			active++
		}
	}
	if err != nil {
		return "", "", err
	}
	n, err := readCounter(counter)
	switch {
	case err != nil:
		return "", "", err
	case n != total:
		return "", "", fmt.Errorf("of %d increments of a number in a file, under the lock, %d are lost",
			total, total-n)
	case total == 0:
		return "", "", fmt.Errorf("no process has acquired the lock in %v", count.Timeout)
	case active == 1:
		return info, fmt.Sprintf("only one of %d processes has held the lock, %d times",
			len(c.crew.Workers), total), nil
	}
	return pass, fmt.Sprintf("%d processes have held the lock %d times, never two of them at once",
		active, total), nil
}

func (c *checker) readers() (result, string, error) {
	a, b, w := c.crew.Workers[0], c.crew.Workers[1], c.crew.Workers[2]
	steps := []func() error{
		func() error { return c.acquire(a, worker.Read) },
		func() error { return c.acquire(b, worker.Read) },
		func() error { return c.refuse(w, worker.Write, "two readers") },
		func() error { return c.release(a, worker.Read) },
		func() error { return c.refuse(w, worker.Write, "a reader") },
		func() error { return c.release(b, worker.Read) },
		func() error { return c.acquire(w, worker.Write) },
		func() error { return c.refuse(a, worker.Read, "a writer") },
		func() error { return c.refuse(b, worker.Exclusive, "a writer") },
		func() error { return c.release(w, worker.Write) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return "", "", err
		}
	}
	return pass, "two processes have read at once, and no writer beside them", nil
}

func (c *checker) death() (result, string, error) {
	var latency time.Duration
	for _, mode := range []worker.Mode{worker.Write, worker.Read} {
		holder, waiter := c.crew.Workers[0], c.crew.Workers[1]
		if err := c.holdAndWait(holder, waiter, mode); err != nil {
			return "", "", err
		}
		at := time.Now()
		c.crew.Kill(holder.Number)
		r, err := c.await(waiter, mustTimeout)
		if err == nil && !r.OK {
			err = fmt.Errorf("process %d did not get the lock in %v after its holder (%s) was killed",
				waiter.PID(), mustTimeout, mode)
		}
		if err != nil {
			return "", "", err
		}
		latency = max(latency, time.Unix(0, r.At).Sub(at))
		if err := c.release(waiter, worker.Write); err != nil {
			return "", "", err
		}
		if err := c.start(holder.Number); err != nil {
			return "", "", err
		}
	}
	return pass, fmt.Sprintf("a waiter got the lock %v after the holder was killed",
		cli.Rounded(latency)), nil
}

// strayClose lets the holder itself close another descriptor last. Where locks
// belong to the process that drops the lock, which is no more than POSIX says.
func (c *checker) strayClose() (result, string, error) {
	holder, other, third := c.crew.Workers[0], c.crew.Workers[1], c.crew.Workers[2]
	if err := c.acquire(holder, worker.Write); err != nil {
		return "", "", err
	}
	if err := c.mustExclude(third, worker.Write); err != nil {
		return "", "", err
	}
	if _, err := c.ask(other, request{Do: "touch"}); err != nil && runtime.GOOS != "windows" {
		return "", "", err
	}
	if err := c.refuse(third, worker.Write, "another process"); err != nil {
		return "", "", fmt.Errorf("%w: it was lost when process %d closed the file", err, other.PID())
	}
	if _, err := c.ask(holder, request{Do: "touch"}); err != nil && runtime.GOOS != "windows" {
		return "", "", err
	}
	r, err := c.ask(third, request{Do: "try", Mode: worker.Write})
	if err != nil {
		return "", "", err
	}
	if r.OK {
		if err := c.release(third, worker.Write); err != nil {
			return "", "", err
		}
	}
	if err := c.release(holder, worker.Write); err != nil {
		return "", "", err
	}
	if r.OK {
		return info, "locks belong to the process: " +
			"it loses the lock if it opens and closes the file another time", nil
	}
	return pass, "the lock stays if its file is opened and closed, also by the holder", nil
}

const (
	handOffs = 24
	// A waiter that polls does so at least this far apart after settle, with
	// the default poll interval.
	settle    = 40 * time.Millisecond
	pollFloor = 5 * time.Millisecond
)

// handOff measures how long a waiter waits after the release.
func (c *checker) handOff() (result, string, error) {
	holder, waiter := c.crew.Workers[0], c.crew.Workers[1]
	var latencies []time.Duration
	if err := c.acquire(holder, worker.Write); err != nil {
		return "", "", err
	}
	for range handOffs {
		if err := c.beginToWait(waiter); err != nil {
			return "", "", err
		}
		select {
		case <-time.After(settle):
		case <-waiter.Messages: // the lock was acquired, or the process has ended
			return "", "", &precondition{
				fmt.Errorf("process %d has not waited for the lock", waiter.PID())}
		case <-c.ctx.Done():
			return "", "", c.ctx.Err()
		}
		released, err := c.ask(holder, request{Do: "release", Mode: worker.Write})
		if err != nil {
			return "", "", err
		}
		r, err := c.awaitLock(waiter)
		if err != nil {
			return "", "", err
		}
		latencies = append(latencies, max(0, time.Duration(r.At-released.At)))
		holder, waiter = waiter, holder
	}
	if err := c.release(holder, worker.Write); err != nil {
		return "", "", err
	}
	slices.Sort(latencies)
	median, worst := latencies[len(latencies)/2], latencies[len(latencies)-1]
	how := "waiters are woken"
	if median >= pollFloor/2 {
		how = "waiters seem to poll"
	}
	return info, fmt.Sprintf("%s: a released lock is acquired after %v (median of %d), %v at worst",
		how, cli.Rounded(median), handOffs, cli.Rounded(worst)), nil
}

// replaced removes the lock file, and then renames it, each time while it is
// held and waited for.
func (c *checker) replaced() (result, string, error) {
	for _, change := range []struct {
		verb string
		do   func() error
	}{
		{"removed", func() error { return os.Remove(c.crew.Lock) }},
		{"renamed", func() error { return os.Rename(c.crew.Lock, c.crew.Lock+".old") }},
	} {
		possible, err := c.replacedBy(change.verb, change.do)
		if err != nil {
			return "", "", err
		}
		if !possible {
			return pass, "the lock file cannot be " + change.verb + " while it is locked", nil
		}
	}
	if err := c.removedByHolder(); err != nil {
		return "", "", err
	}
	return pass, "a holder notices that its file was removed or renamed, " +
		"and waiters go on with the new one", nil
}

// removedByHolder removes the lock file right before its release. A waiter that
// is granted the lock on the removed file must notice that: others lock the new
// one.
func (c *checker) removedByHolder() error {
	holder, waiter, third := c.crew.Workers[0], c.crew.Workers[1], c.crew.Workers[2]
	if err := c.holdAndWait(holder, waiter, worker.Write); err != nil {
		return err
	}
	select {
	case <-time.After(patience): // so that it waits, unless the machine is slow
	case <-c.ctx.Done():
		return c.ctx.Err()
	}
	r, err := c.ask(holder, request{Do: "remove"})
	if err == nil && !r.Replaced {
		err = fmt.Errorf("process %d has not noticed that it has removed its lock file", holder.PID())
	}
	if err != nil {
		return err
	}
	if _, err := c.awaitLock(waiter); err != nil {
		return err
	}
	if err := c.refuse(third, worker.Write, "another process"); err != nil {
		return fmt.Errorf("%w: that has locked the file that its first holder had removed", err)
	}
	return c.release(waiter, worker.Write)
}

func (c *checker) replacedBy(verb string, change func() error) (possible bool, err error) {
	holder, waiter := c.crew.Workers[0], c.crew.Workers[1]
	if err := c.holdAndWait(holder, waiter, worker.Write); err != nil {
		return false, err
	}
	if err := change(); err != nil {
		if err := c.release(holder, worker.Write); err != nil {
			return false, err
		}
		if _, err := c.awaitLock(waiter); err != nil {
			return false, err
		}
		return false, c.release(waiter, worker.Write)
	}
	r, err := c.await(waiter, mustTimeout)
	if err == nil && !r.OK {
		err = fmt.Errorf("process %d waited %v for a lock file that was %s",
			waiter.PID(), mustTimeout, verb)
	}
	if err != nil {
		return false, err
	}
	r, err = c.ask(holder, request{Do: "release", Mode: worker.Write})
	if err == nil {
		err = fmt.Errorf("process %d has not noticed that its lock file was %s", holder.PID(), verb)
	}
	if !r.Replaced {
		return false, err
	}
	return true, c.release(waiter, worker.Write)
}
