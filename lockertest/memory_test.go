package lockertest

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/lease"
)

// A memory has locks for the goroutines of this process. They are correct, unless there is a bug.
type memory struct {
	bug   string
	mu    sync.Mutex
	locks map[string]*memoryState
}

type memoryState struct {
	holds, queue []*memoryHold
	token        int64
}

// A memoryLock is a lock of every kind.
type memoryLock struct {
	*memory
	name  string
	rw    bool
	holds []*memoryHold // acquired through this value, lost ones among them
	token int64
}

// A memoryHold waits for the lock, holds it or has held it.
type memoryHold struct {
	lock         *memoryLock
	shared, held bool
	granted      chan bool
	ctx          context.Context
	cancel       context.CancelCauseFunc
	lost         bool
}

func newMemory(bug string) Locks {
	m := &memory{bug: bug, locks: map[string]*memoryState{}}
	return Locks{
		NewLock: func(_ *testing.T, name string) fasteners.Locker { return &memoryLock{memory: m, name: name} },
		NewReaderWriterLock: func(_ *testing.T, name string) fasteners.ReaderWriterLocker {
			return &memoryLock{memory: m, name: name, rw: true}
		},
		Lose:     func(_ *testing.T, name string) { m.lose(name) },
		Tokens:   true,
		OneQueue: true,
	}
}

func (l *memoryLock) Acquire(ctx context.Context) error          { return l.acquire(ctx, false) }
func (l *memoryLock) AcquireReadLock(ctx context.Context) error  { return l.acquire(ctx, true) }
func (l *memoryLock) AcquireWriteLock(ctx context.Context) error { return l.acquire(ctx, false) }

func (l *memoryLock) TryAcquire(ctx context.Context) (bool, error)          { return l.try(ctx, false) }
func (l *memoryLock) TryAcquireReadLock(ctx context.Context) (bool, error)  { return l.try(ctx, true) }
func (l *memoryLock) TryAcquireWriteLock(ctx context.Context) (bool, error) { return l.try(ctx, false) }

func (l *memoryLock) Release() error          { return l.releaseAny(false) }
func (l *memoryLock) ReleaseReadLock() error  { return l.releaseAny(true) }
func (l *memoryLock) ReleaseWriteLock() error { return l.releaseAny(false) }

func (l *memoryLock) Hold(ctx context.Context) (context.Context, func() error, error) {
	return l.hold(ctx, false)
}

func (l *memoryLock) HoldRead(ctx context.Context) (context.Context, func() error, error) {
	return l.hold(ctx, true)
}

func (l *memoryLock) HoldWrite(ctx context.Context) (context.Context, func() error, error) {
	return l.hold(ctx, false)
}

func (l *memoryLock) acquire(ctx context.Context, shared bool) error {
	_, err := l.get(ctx, shared, false)
	return err
}

func (l *memoryLock) hold(ctx context.Context, shared bool) (context.Context, func() error, error) {
	h, err := l.get(ctx, shared, true)
	if err != nil {
		return nil, nil, err
	}
	return h.ctx, func() error { return l.release(h) }, nil
}

func (l *memoryLock) try(ctx context.Context, shared bool) (bool, error) {
	switch {
	case l.bug == "try waits":
		return true, l.acquire(ctx, shared)
	case ctx.Err() != nil && l.bug != "try ignores a done context":
		return false, l.contextError(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.state(l.name)
	h := &memoryHold{lock: l, shared: shared, granted: make(chan bool), cancel: func(error) {}}
	s.queue = append(s.queue, h)
	s.grant(l.bug)
	select {
	case <-h.granted:
		l.holds = append(l.holds, h)
		return true, nil
	default:
		s.remove(h)
		return l.bug == "try succeeds always", nil
	}
}

// get acquires the lock.
func (l *memoryLock) get(ctx context.Context, shared, held bool) (*memoryHold, error) {
	if ctx.Err() != nil && l.bug != "done context is ignored" {
		return nil, l.contextError(ctx)
	}
	h := &memoryHold{lock: l, shared: shared, held: held, granted: make(chan bool)}
	parent := ctx
	if l.bug == "values of the context are lost" {
		parent = context.Background()
	}
	h.ctx, h.cancel = context.WithCancelCause(parent)
	l.mu.Lock()
	s := l.state(l.name)
	s.queue = append(s.queue, h)
	s.grant(l.bug)
	l.mu.Unlock()
	done := ctx.Done()
	if l.bug == "canceled waiter goes on waiting" {
		done = nil
	}
	select {
	case <-h.granted:
	default:
		select {
		case <-h.granted:
		case <-done:
			return nil, l.giveUp(ctx, h)
		}
	}
	if l.bug == "grant that meets a cancellation is forgotten" {
		time.Sleep(time.Millisecond)
		if ctx.Err() != nil {
			return nil, l.contextError(ctx)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holds = append(l.holds, h)
	if token, ok := s.nextToken(l); ok {
		h.ctx = fasteners.ContextWithToken(h.ctx, token)
	}
	if l.bug == "end of the context releases the lock" {
		context.AfterFunc(ctx, func() { l.end(h) })
	}
	return h, nil
}

// nextToken is called when the lock has been granted. Readers that were granted the lock together
// can take their tokens in another order.
func (s *memoryState) nextToken(l *memoryLock) (int64, bool) {
	s.token++
	l.token++
	switch l.bug {
	case "tokens fall":
		return -s.token, true
	case "tokens of each lock value by itself":
		return l.token, true
	case "token stays after a loss":
		return 1, true
	case "no token":
		return 0, false
	}
	return s.token, true
}

func (l *memoryLock) giveUp(ctx context.Context, h *memoryHold) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bug != "waiter that gave up gets the lock" {
		l.state(l.name).remove(h)
		l.state(l.name).grant(l.bug)
	}
	return l.contextError(ctx)
}

func (l *memoryLock) contextError(ctx context.Context) error {
	err := lease.ContextError(ctx)
	switch l.bug {
	case "error without a path":
		return err
	case "error with an empty path":
		return &fs.PathError{Op: "acquire", Err: err}
	case "error without the cause":
		err = ctx.Err()
	case "deadline with a cause is no timeout":
		err = errors.Join(ctx.Err(), context.Cause(ctx))
	case "cancellation looks like a timeout":
		err = lease.WithCause(context.DeadlineExceeded, err)
	}
	return &fs.PathError{Op: "acquire", Path: l.name, Err: err}
}

func (m *memory) state(name string) *memoryState {
	if m.locks[name] == nil {
		m.locks[name] = new(memoryState)
	}
	return m.locks[name]
}

// grant gives the lock to those at the head of the queue that can have it.
func (s *memoryState) grant(bug string) {
	for len(s.queue) > 0 {
		i := 0
		switch bug {
		case "last come first served":
			i = len(s.queue) - 1
		case "readers pass a waiting writer":
			if i = slices.IndexFunc(s.queue, func(h *memoryHold) bool { return s.free(h, bug) }); i < 0 {
				return
			}
		}
		h := s.queue[i]
		if !s.free(h, bug) {
			return
		}
		s.queue = slices.Delete(s.queue, i, i+1)
		s.holds = append(s.holds, h)
		close(h.granted)
	}
}

// free reports whether no holder excludes h.
func (s *memoryState) free(h *memoryHold, bug string) bool {
	return !slices.ContainsFunc(s.holds, func(o *memoryHold) bool {
		switch bug {
		case "no exclusion":
			return false
		case "exclusion only within a lock value":
			return h.lock == o.lock
		case "exclusion only within a kind of lock":
			return (!h.shared || !o.shared) && h.lock.rw == o.lock.rw
		case "readers exclude each other":
			return true
		case "readers do not exclude a writer":
			return h.shared == o.shared && !h.shared
		case "one lock value may be acquired again":
			return (!h.shared || !o.shared) && h.lock != o.lock
		}
		return !h.shared || !o.shared
	})
}

func (s *memoryState) remove(h *memoryHold) {
	is := func(o *memoryHold) bool { return o == h }
	s.holds, s.queue = slices.DeleteFunc(s.holds, is), slices.DeleteFunc(s.queue, is)
}

// releaseAny releases a hold without a context, if there is one, and of these one that is lost.
func (l *memoryLock) releaseAny(shared bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found *memoryHold
	for _, h := range l.holds {
		if h.shared == shared && (found == nil || l.before(h, found)) {
			found = h
		}
	}
	if found != nil {
		return l.releaseLocked(found)
	}
	switch s := l.state(l.name); l.bug {
	case "release without a hold succeeds":
		return nil
	case "release without a hold ends that of another":
		s.holds = nil
		s.grant(l.bug)
	}
	return l.releaseError(fasteners.ErrNotAcquired)
}

// before reports whether h is released before another hold that is older, if it is not told which.
func (l *memoryLock) before(h, older *memoryHold) bool {
	switch l.bug {
	case "release takes the oldest hold":
		return false
	case "release takes the newest hold":
		return true
	}
	if h.held != older.held {
		return older.held
	}
	return !older.lost
}

func (l *memoryLock) release(h *memoryHold) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.releaseLocked(h)
}

func (l *memoryLock) releaseLocked(h *memoryHold) error {
	s := l.state(l.name)
	i := slices.Index(l.holds, h)
	switch {
	case i < 0 && l.bug == "second release ends the next hold":
		s.holds = nil
		s.grant(l.bug)
		fallthrough
	case i < 0:
		return l.releaseError(fasteners.ErrNotAcquired)
	}
	l.holds = slices.Delete(l.holds, i, i+1)
	switch l.bug {
	case "context goes on after the release":
	case "release looks like a loss":
		h.cancel(fasteners.ErrLost)
	default:
		h.cancel(nil)
	}
	s.remove(h)
	if l.bug == "release ends all holds of a lock value" || h.lost && l.bug == "release of a lost hold ends the next" {
		s.holds = nil
	}
	s.grant(l.bug)
	if h.lost && l.bug != "release does not tell of a loss" {
		return l.releaseError(fasteners.ErrLost)
	}
	return nil
}

func (l *memoryLock) releaseError(err error) error {
	switch l.bug {
	case "error without a path":
		return err
	case "error with an empty path":
		return &fs.PathError{Op: "release", Err: err}
	}
	return &fs.PathError{Op: "release", Path: l.name, Err: err}
}

// end ends a hold without telling.
func (l *memoryLock) end(h *memoryHold) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state(l.name).remove(h)
	l.state(l.name).grant(l.bug)
}

func (m *memory) lose(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.state(name)
	for _, h := range s.holds {
		h.lost = true
		switch m.bug {
		case "context does not tell of a loss":
		case "cause is not that of a loss":
			h.cancel(nil)
		default:
			h.cancel(fasteners.ErrLost)
		}
	}
	s.holds = nil
	s.grant(m.bug)
}
