package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"
)

// A check tries one thing that the locks need. Try returns an error if that does not hold, or if it
// cannot be tried. No worker holds or requests the lock before it, nor after it if it returns no error.
type check struct {
	name  string
	means string // what a failure means
	try   func(*checker) (result, string, error)
}

var checks = []check{
	{"identity", "A removed lock file may go unnoticed, or one lock may be taken for another.",
		(*checker).identity},
	{"exclusion", "Two programs can hold a lock at the same time. It protects nothing here.",
		(*checker).exclusion},
	{"readers", "Readers do not share the lock, or do not keep writers out.",
		(*checker).readers},
	{"death", "After a crash nobody may get the lock, until somebody removes the file or restarts the machine.",
		(*checker).death},
	{"stray close", "A program that only looks at the lock file, such as cp, can take the lock away from its holder.",
		(*checker).strayClose},
	{"hand-off", "Programs that wait for a lock may wait forever.",
		(*checker).handOff},
	{"replaced", "If somebody removes the lock file, two programs can hold the lock, and neither of them notices.",
		(*checker).replaced},
}

func (k check) run(c *checker) verdict {
	r, detail, err := k.try(c)
	if err == nil {
		return verdict{Name: k.name, Result: r, Detail: detail}
	}
	if c.ctx.Err() == nil {
		// The workers may hold locks, or wait for them.
		if resetErr := c.reset(); resetErr != nil {
			err = fmt.Errorf("%w; %w", err, resetErr)
		}
	}
	v := verdict{Name: k.name, Result: fail, Detail: err.Error(), Means: k.means}
	var p *precondition
	var refused *refusal
	switch {
	case errors.As(err, &p):
		v.Means = "The lock excludes nobody, so this could not be tried."
	case errors.As(err, &refused):
		v.Means = "The system has refused something. Programs that need the lock will fail, too."
	}
	return v
}

// reset replaces the workers by new ones.
func (c *checker) reset() error {
	for i, m := range c.members {
		c.board.condemn(i)
		m.end()
		if err := c.start(i); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) lock() string { return filepath.Join(c.dir, lockName) }

// acquire makes m acquire the lock, which it must be able to do.
func (c *checker) acquire(m *member, mode holdMode) error {
	r, err := c.ask(m, request{Do: "acquire", Mode: mode, Timeout: mustTimeout})
	return mustHave(r, err, m, mode)
}

func mustHave(r reply, err error, m *member, mode holdMode) error {
	if err == nil && !r.OK {
		err = fmt.Errorf("process %d waited %v for a free lock (%s)", m.pid(), mustTimeout, mode)
	}
	return err
}

// release makes m release the lock, whose file must be the same.
func (c *checker) release(m *member, mode holdMode) error {
	_, err := c.ask(m, request{Do: "release", Mode: mode})
	return err
}

// mustExclude is refuse for a check of something else.
func (c *checker) mustExclude(m *member, mode holdMode) error {
	err := c.refuse(m, mode, "another process")
	if err != nil {
		err = &precondition{err}
	}
	return err
}

// A precondition is the error of a check that could not be tried, as the locks exclude nobody.
type precondition struct{ error }

// refuse makes m try to acquire the lock, without and with a wait, which must fail.
func (c *checker) refuse(m *member, mode holdMode, by string) error {
	for _, r := range []request{{Do: "try", Mode: mode}, {Do: "acquire", Mode: mode, Timeout: patience}} {
		got, err := c.ask(m, r)
		if err != nil {
			return err
		}
		if got.OK {
			return fmt.Errorf("process %d has acquired the lock (%s) while %s held it", m.pid(), mode, by)
		}
	}
	return nil
}

func (c *checker) identity() (result, string, error) {
	id := func(name string, flags int) (string, error) {
		path := filepath.Join(c.dir, name)
		f, err := os.OpenFile(path, flags, 0o666)
		if err != nil {
			return "", err
		}
		if err := f.Close(); err != nil {
			return "", err
		}
		id, err := identify(path)
		return fmt.Sprintf("device %#x, file %d", id.volume, id.file), err
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
		return "", "", fmt.Errorf("a file has become another one after it was closed: %s, then %s", first, again)
	case other == first:
		return "", "", fmt.Errorf("two files have the same identity: %s", first)
	}
	return pass, "a file keeps its numbers (" + first + "), and another one has others", nil
}

func (c *checker) exclusion() (result, string, error) {
	counter := filepath.Join(c.dir, counterName)
	if err := os.WriteFile(counter, []byte("000000000000"), 0o666); err != nil {
		return "", "", err
	}
	count := request{Do: "count", Timeout: time.Second}
	for _, m := range c.members {
		if err := m.send(count); err != nil {
			return "", "", m.gone(err)
		}
	}
	var err error
	total, active := 0, 0
	for _, m := range c.members {
		r, askErr := c.await(m, count.Timeout)
		if err == nil {
			err = askErr
		}
		if o := r.Other; o != nil && err == nil {
			err = fmt.Errorf("processes %d and %d have held the lock at the same time", m.pid(), o.PID)
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
		return "", "", fmt.Errorf("of %d increments of a number in a file, under the lock, %d are lost", total, total-n)
	case total == 0:
		return "", "", fmt.Errorf("no process has acquired the lock in %v", count.Timeout)
	case active == 1:
		return info, fmt.Sprintf("only one of %d processes has held the lock, %d times", len(c.members), total), nil
	}
	return pass, fmt.Sprintf("%d processes have held the lock %d times, never two of them at once", active, total), nil
}

func (c *checker) readers() (result, string, error) {
	a, b, w := c.members[0], c.members[1], c.members[2]
	steps := []func() error{
		func() error { return c.acquire(a, read) },
		func() error { return c.acquire(b, read) },
		func() error { return c.refuse(w, write, "two readers") },
		func() error { return c.release(a, read) },
		func() error { return c.refuse(w, write, "a reader") },
		func() error { return c.release(b, read) },
		func() error { return c.acquire(w, write) },
		func() error { return c.refuse(a, read, "a writer") },
		func() error { return c.refuse(b, exclusive, "a writer") },
		func() error { return c.release(w, write) },
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
	for _, mode := range []holdMode{write, read} {
		holder, waiter := c.members[0], c.members[1]
		if err := c.acquire(holder, mode); err != nil {
			return "", "", err
		}
		if err := c.mustExclude(waiter, write); err != nil {
			return "", "", err
		}
		if err := waiter.send(request{Do: "acquire", Mode: write, Timeout: mustTimeout}); err != nil {
			return "", "", waiter.gone(err)
		}
		at := time.Now()
		c.board.condemn(holder.number)
		holder.end()
		r, err := c.await(waiter, mustTimeout)
		if err == nil && !r.OK {
			err = fmt.Errorf("process %d did not get the lock in %v after its holder (%s) was killed",
				waiter.pid(), mustTimeout, mode)
		}
		if err != nil {
			return "", "", err
		}
		latency = max(latency, time.Unix(0, r.At).Sub(at))
		if err := c.release(waiter, write); err != nil {
			return "", "", err
		}
		if err := c.start(holder.number); err != nil {
			return "", "", err
		}
	}
	return pass, fmt.Sprintf("a waiter got the lock %v after the holder was killed", rounded(latency)), nil
}

// strayClose lets the holder itself close another descriptor last. Where locks belong to the process that
// drops the lock, which is no more than POSIX says.
func (c *checker) strayClose() (result, string, error) {
	holder, other, third := c.members[0], c.members[1], c.members[2]
	if err := c.acquire(holder, write); err != nil {
		return "", "", err
	}
	if err := c.mustExclude(third, write); err != nil {
		return "", "", err
	}
	if _, err := c.ask(other, request{Do: "touch"}); err != nil && runtime.GOOS != "windows" {
		return "", "", err
	}
	if err := c.refuse(third, write, "another process"); err != nil {
		return "", "", fmt.Errorf("%w: it was lost when process %d closed the file", err, other.pid())
	}
	if _, err := c.ask(holder, request{Do: "touch"}); err != nil && runtime.GOOS != "windows" {
		return "", "", err
	}
	r, err := c.ask(third, request{Do: "try", Mode: write})
	if err != nil {
		return "", "", err
	}
	if r.OK {
		if err := c.release(third, write); err != nil {
			return "", "", err
		}
	}
	if err := c.release(holder, write); err != nil {
		return "", "", err
	}
	if r.OK {
		return info, "locks belong to the process: it loses the lock if it opens and closes the file another time", nil
	}
	return pass, "the lock stays if its file is opened and closed, also by the holder", nil
}

const (
	handOffs = 24
	// A waiter that polls does so at least this far apart after settle, with the default poll
	// interval.
	settle    = 40 * time.Millisecond
	pollFloor = 5 * time.Millisecond
)

// handOff measures how long a waiter waits after the release.
func (c *checker) handOff() (result, string, error) {
	holder, waiter := c.members[0], c.members[1]
	var latencies []time.Duration
	if err := c.acquire(holder, write); err != nil {
		return "", "", err
	}
	for range handOffs {
		if err := waiter.send(request{Do: "acquire", Mode: write, Timeout: mustTimeout}); err != nil {
			return "", "", waiter.gone(err)
		}
		select {
		case <-time.After(settle):
		case <-waiter.messages: // the lock was acquired, or the process has ended
			return "", "", &precondition{fmt.Errorf("process %d has not waited for the lock", waiter.pid())}
		case <-c.ctx.Done():
			return "", "", c.ctx.Err()
		}
		released, err := c.ask(holder, request{Do: "release", Mode: write})
		if err != nil {
			return "", "", err
		}
		r, err := c.await(waiter, mustTimeout)
		if err := mustHave(r, err, waiter, write); err != nil {
			return "", "", err
		}
		latencies = append(latencies, max(0, time.Duration(r.At-released.At)))
		holder, waiter = waiter, holder
	}
	if err := c.release(holder, write); err != nil {
		return "", "", err
	}
	slices.Sort(latencies)
	median, worst := latencies[len(latencies)/2], latencies[len(latencies)-1]
	how := "waiters are woken"
	if median >= pollFloor/2 {
		how = "waiters seem to poll"
	}
	return info, fmt.Sprintf("%s: a released lock is acquired after %v (median of %d), %v at worst",
		how, rounded(median), handOffs, rounded(worst)), nil
}

// replaced removes the lock file, and then renames it, each time while it is held and waited for.
func (c *checker) replaced() (result, string, error) {
	for _, change := range []struct {
		verb string
		do   func() error
	}{
		{"removed", func() error { return os.Remove(c.lock()) }},
		{"renamed", func() error { return os.Rename(c.lock(), c.lock()+".old") }},
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
	return pass, "a holder notices that its file was removed or renamed, and waiters go on with the new one", nil
}

// removedByHolder removes the lock file right before its release. A waiter that is granted the lock on
// the removed file must notice that: others lock the new one.
func (c *checker) removedByHolder() error {
	holder, waiter, third := c.members[0], c.members[1], c.members[2]
	if err := c.acquire(holder, write); err != nil {
		return err
	}
	if err := c.mustExclude(waiter, write); err != nil {
		return err
	}
	if err := waiter.send(request{Do: "acquire", Mode: write, Timeout: mustTimeout}); err != nil {
		return waiter.gone(err)
	}
	select {
	case <-time.After(patience): // so that it waits, unless the machine is slow
	case <-c.ctx.Done():
		return c.ctx.Err()
	}
	r, err := c.ask(holder, request{Do: "remove"})
	if err == nil && !r.Replaced {
		err = fmt.Errorf("process %d has not noticed that it has removed its lock file", holder.pid())
	}
	if err != nil {
		return err
	}
	r, err = c.await(waiter, mustTimeout)
	if err := mustHave(r, err, waiter, write); err != nil {
		return err
	}
	if err := c.refuse(third, write, "another process"); err != nil {
		return fmt.Errorf("%w: that has locked the file that its first holder had removed", err)
	}
	return c.release(waiter, write)
}

func (c *checker) replacedBy(verb string, change func() error) (possible bool, err error) {
	holder, waiter := c.members[0], c.members[1]
	if err := c.acquire(holder, write); err != nil {
		return false, err
	}
	if err := c.mustExclude(waiter, write); err != nil {
		return false, err
	}
	if err := waiter.send(request{Do: "acquire", Mode: write, Timeout: mustTimeout}); err != nil {
		return false, waiter.gone(err)
	}
	if err := change(); err != nil {
		if err := c.release(holder, write); err != nil {
			return false, err
		}
		r, err := c.await(waiter, mustTimeout)
		if err := mustHave(r, err, waiter, write); err != nil {
			return false, err
		}
		return false, c.release(waiter, write)
	}
	r, err := c.await(waiter, mustTimeout)
	if err == nil && !r.OK {
		err = fmt.Errorf("process %d waited %v for a lock file that was %s", waiter.pid(), mustTimeout, verb)
	}
	if err != nil {
		return false, err
	}
	r, err = c.ask(holder, request{Do: "release", Mode: write})
	if err == nil {
		err = fmt.Errorf("process %d has not noticed that its lock file was %s", holder.pid(), verb)
	}
	if !r.Replaced {
		return false, err
	}
	return true, c.release(waiter, write)
}

// rounded returns d with three digits or less.
func rounded(d time.Duration) time.Duration {
	for unit := time.Duration(1); ; unit *= 10 {
		if d < 1000*unit {
			return d.Round(unit)
		}
	}
}
