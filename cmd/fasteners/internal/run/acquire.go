package run

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/cli"
	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/file"
)

// A hold is a lock that this process has acquired, or is about to.
type hold struct {
	path    string
	id      file.ID // if there are several locks
	lock    *fasteners.InterProcessReaderWriterLock
	held    context.Context
	release func() error
}

// end releases the lock, and removes the lock file if remove is true, unless
// others wait for the lock: they would have to find out. If others may share
// the lock, it acquires it alone for that: they would go on to hold the lock on
// the removed file, while somebody else acquires that on a new one.
func (h *hold) end(remove, shared bool) error {
	if remove && shared {
		err := h.release()
		if ok, _ := h.lock.TryAcquireWriteLock(); !ok || err != nil {
			return err
		}
		h.release = h.lock.ReleaseWriteLock
	}
	if remove && !file.RemoveAfterRelease {
		holders, _ := h.lock.Holders()
		if !slices.ContainsFunc(holders, func(h fasteners.Holder) bool { return h.Waiting }) {
			_ = os.Remove(h.path)
		}
	}
	err := h.release()
	if remove && file.RemoveAfterRelease {
		_ = os.Remove(h.path)
	}
	if errors.Is(err, fasteners.ErrReplaced) {
		return nil // it was told, or is our doing
	}
	return err
}

// acquire acquires all locks of the job. Its error has the status to exit with.
// Most locks are free, so it tries first, and prepares for a wait and for
// signals only if one is not.
func (j *job) acquire() ([]*hold, error) {
	start := time.Now()
	holds, err := j.acquireAll(context.Background(), start, false)
	if j.wait != 0 && isBusy(err) {
		holds, err = j.acquireWaiting(start)
	}
	var e *cli.StatusError
	switch {
	case err == nil:
		j.say(j.tookFormat, time.Since(start).Seconds(), joinPaths(holds))
		return holds, nil
	case isBusy(err):
		return nil, j.busyError(err)
	case errors.As(err, &e):
		return nil, err
	}
	return nil, &cli.StatusError{Status: j.errorStatus(err), Err: err}
}

func (j *job) acquireWaiting(start time.Time) ([]*hold, error) {
	var deadline time.Time
	if j.wait != forever {
		deadline = start.Add(j.wait)
	}
	ctx, stop := cli.SignalContext()
	holds, err := j.acquireAll(ctx, deadline, !j.quiet)
	stop()
	if ctx.Err() != nil {
		cli.DieOfInterruption(ctx)
		return nil, cli.Interruption(ctx)
	}
	return holds, err
}

// acquireAll acquires the locks until ctx is done or the deadline is over, if
// there is one. The contexts of the holds are derived from ctx, so the deadline
// is not in it.
func (j *job) acquireAll(ctx context.Context, deadline time.Time, tell bool) ([]*hold, error) {
	if j.fd >= 0 {
		if err := checkDescriptor(j.fd); err != nil {
			return nil, fmt.Errorf("descriptor %d: %w", j.fd, err)
		}
		if j.file == nil {
			j.file = os.NewFile(uintptr(j.fd), fmt.Sprintf("descriptor %d", j.fd))
		}
		h := &hold{path: j.file.Name()}
		return []*hold{h}, j.acquireOne(ctx, h, deadline, tell, fasteners.WithFile(j.file))
	}
	if len(j.locks) == 1 {
		h := &hold{path: j.locks[0]}
		return []*hold{h}, j.acquireOne(ctx, h, deadline, tell)
	}
	for {
		holds, err := j.inOrder()
		for i, h := range holds {
			if err = j.acquireOne(ctx, h, deadline, tell); err != nil {
				releaseAll(holds[:i])
				return nil, err
			}
		}
		if err != nil || !anyReplaced(holds) {
			return holds, err
		}
		releaseAll(holds) // the order was not that of others
	}
}

// acquireOne acquires one lock for h.
func (j *job) acquireOne(
	ctx context.Context, h *hold, deadline time.Time, tell bool, opts ...fasteners.Option,
) error {
	if !deadline.IsZero() {
		opts = append(opts, fasteners.WithTimeout(max(time.Until(deadline), 1))) // 1 ns: it only tries
	}
	if tell {
		n := &waitNotice{program: j.program, hold: h, line: cli.NewProgressLine(j.stderr)}
		defer n.end()
		opts = append(opts, fasteners.WithWaitNotice(time.Second, n.tell))
	}
	h.lock = fasteners.NewInterProcessReaderWriterLock(h.path, opts...)
	acquire := h.lock.HoldWrite
	if j.shared {
		acquire = h.lock.HoldRead
	}
	var err error
	h.held, h.release, err = acquire(ctx)
	return err
}

// inOrder returns the locks in the order in which every job acquires them,
// which is that of the identities of their files. It returns each once,
// whatever number of paths name it.
func (j *job) inOrder() (order []*hold, err error) {
	for _, path := range j.locks {
		id, err := identifyOrCreate(path)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(order, func(h *hold) bool { return h.id == id }) {
			order = append(order, &hold{path: path, id: id})
		}
	}
	slices.SortFunc(order, func(a, b *hold) int { return a.id.Compare(b.id) })
	return order, nil
}

// anyReplaced reports whether a path no longer names the file by which the
// order was chosen.
func anyReplaced(holds []*hold) bool {
	return slices.ContainsFunc(holds, func(h *hold) bool {
		id, err := file.Identify(h.path)
		return err != nil || id != h.id
	})
}

func releaseAll(holds []*hold) {
	for _, h := range slices.Backward(holds) {
		_ = h.release()
	}
}

// identifyOrCreate returns the identity of a lock file. It creates a missing
// one by acquiring the lock, which no other job can be waiting for: a try waits
// for nobody.
func identifyOrCreate(path string) (file.ID, error) {
	for {
		id, err := file.Identify(path)
		if !errors.Is(err, fs.ErrNotExist) {
			return id, err
		}
		lock := fasteners.NewInterProcessLock(path)
		ok, err := lock.TryAcquire()
		if err != nil {
			return file.ID{}, err
		}
		if ok {
			_ = lock.Release()
		}
	}
}

// isBusy reports whether an acquire has failed because somebody else holds the
// lock.
func isBusy(err error) bool {
	var held *fasteners.HeldError
	return errors.As(err, &held) || errors.Is(err, context.DeadlineExceeded)
}

// busyError returns the error for a lock that somebody else holds.
func (j *job) busyError(err error) error {
	e := &cli.StatusError{Status: j.busyStatus}
	if j.skip {
		e.Status = 0
	}
	if j.quiet || j.skip && j.verbose == nil {
		return e
	}
	var held *fasteners.HeldError
	var path *fs.PathError
	if errors.As(err, &held) && errors.As(err, &path) {
		holders := held.Holders
		if !slices.ContainsFunc(holders, func(h fasteners.Holder) bool { return h.PID != 0 }) {
			// What takes more than one question, such as who has inherited the
			// lock.
			holders, _ = fasteners.NewInterProcessLock(path.Path, fasteners.WithFile(j.file)).Holders()
		}
		err = fmt.Errorf("%s: held by %s", path.Path, cli.DescribeHolders(holders))
	}
	e.Err = err
	return e
}

func joinPaths(holds []*hold) string {
	var paths []string
	for _, h := range holds {
		paths = append(paths, h.path)
	}
	return strings.Join(paths, ", ")
}
