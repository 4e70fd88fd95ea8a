package check

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/worker"
)

// A checker lets the workers of a crew do what a check needs.
type checker struct {
	ctx  context.Context
	crew *worker.Crew
}

const (
	workers     = 4
	mustTimeout = 8 * time.Second        // of a wait that has to succeed
	patience    = 100 * time.Millisecond // of a wait that has to fail
)

func newChecker(ctx context.Context, parent string) (*checker, error) {
	crew, err := worker.NewCrew(parent, ".fasteners-check-", workers, 1)
	if err != nil {
		return nil, err
	}
	c := &checker{ctx, crew}
	for i := range workers {
		if err := c.start(i); err != nil {
			_ = crew.Close()
			return nil, err
		}
	}
	return c, nil
}

// start starts the worker with that number, or the next process for it.
func (c *checker) start(number int) error {
	cmd, err := worker.Command("check", c.crew.Dir)
	if err != nil {
		return err
	}
	w, err := c.crew.Start(number, cmd)
	if err != nil {
		return err
	}
	place := c.crew.Place(number)
	_, err = c.ask(w, request{Do: "join", Place: &place})
	return err
}

// path returns the path of a file beside the lock file.
func (c *checker) path(name string) string { return filepath.Join(c.crew.Dir, name) }

// ask sends a request and waits for the reply.
func (c *checker) ask(w *worker.Process, r request) (reply, error) {
	if err := w.Send(r); err != nil {
		return reply{}, err
	}
	return c.await(w, r.Timeout)
}

// await waits for the reply to a request that was sent.
func (c *checker) await(w *worker.Process, timeout time.Duration) (reply, error) {
	// A file system that does not answer must not keep the user waiting: there
	// are others to check.
	limit := time.NewTimer(timeout + mustTimeout)
	defer limit.Stop()
	var message json.RawMessage
	var ok bool
	select {
	case message, ok = <-w.Messages:
	case <-limit.C:
		return reply{}, fmt.Errorf("worker process %d does not answer: %w",
			w.PID(), os.ErrDeadlineExceeded)
	case <-c.ctx.Done():
		return reply{}, context.Cause(c.ctx)
	}
	if !ok {
		return reply{}, w.Failure()
	}
	var r reply
	err := json.Unmarshal(message, &r)
	if err == nil && r.Error != "" {
		err = &refusal{errors.New(r.Error)}
	}
	return r, err
}

// A refusal is an error that a worker has got.
type refusal struct{ error }

// A precondition is the error of a check that could not be made, as the locks
// exclude nobody.
type precondition struct{ error }

// reset replaces the workers by new ones.
func (c *checker) reset() error {
	for i := range c.crew.Workers {
		c.crew.Kill(i)
		if err := c.start(i); err != nil {
			return err
		}
	}
	return nil
}

// acquire makes w acquire the lock, which it must be able to do.
func (c *checker) acquire(w *worker.Process, mode worker.Mode) error {
	r, err := c.ask(w, request{Do: "acquire", Mode: mode, Timeout: mustTimeout})
	return mustHave(r, err, w, mode)
}

// beginToWait makes w acquire the lock, without waiting for that.
func (c *checker) beginToWait(w *worker.Process) error {
	return w.Send(request{Do: "acquire", Mode: worker.Write, Timeout: mustTimeout})
}

// holdAndWait makes holder acquire the lock, and waiter wait for it, as it must.
func (c *checker) holdAndWait(holder, waiter *worker.Process, mode worker.Mode) error {
	if err := c.acquire(holder, mode); err != nil {
		return err
	}
	if err := c.mustExclude(waiter, worker.Write); err != nil {
		return err
	}
	return c.beginToWait(waiter)
}

// awaitLock waits until w has the lock for which it has begun to wait.
func (c *checker) awaitLock(w *worker.Process) (reply, error) {
	r, err := c.await(w, mustTimeout)
	return r, mustHave(r, err, w, worker.Write)
}

func mustHave(r reply, err error, w *worker.Process, mode worker.Mode) error {
	if err == nil && !r.OK {
		err = fmt.Errorf("process %d waited %v for a free lock (%s)", w.PID(), mustTimeout, mode)
	}
	return err
}

// release makes w release the lock, whose file must be the same.
func (c *checker) release(w *worker.Process, mode worker.Mode) error {
	_, err := c.ask(w, request{Do: "release", Mode: mode})
	return err
}

// mustExclude is refuse for a check of something else.
func (c *checker) mustExclude(w *worker.Process, mode worker.Mode) error {
	err := c.refuse(w, mode, "another process")
	if err != nil {
		err = &precondition{err}
	}
	return err
}

// refuse makes w try to acquire the lock, without and with a wait, which must fail.
func (c *checker) refuse(w *worker.Process, mode worker.Mode, by string) error {
	for _, r := range []request{
		{Do: "try", Mode: mode},
		{Do: "acquire", Mode: mode, Timeout: patience},
	} {
		got, err := c.ask(w, r)
		if err != nil {
			return err
		}
		if got.OK {
			return fmt.Errorf("process %d has acquired the lock (%s) while %s held it",
				w.PID(), mode, by)
		}
	}
	return nil
}
