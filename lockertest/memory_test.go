package lockertest

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"

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
	marked       bool // by a bug
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
	refused      chan bool // closed by a bug
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
		Slashes:  true,
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
		switch l.bug {
		case "refused try releases the lock":
			s.holds = nil
		case "refused try wakes the next":
			s.force()
		}
		return l.bug == "try succeeds always", nil
	}
}

// get acquires the lock.
func (l *memoryLock) get(ctx context.Context, shared, held bool) (*memoryHold, error) {
	if ctx.Err() != nil && l.bug != "done context is ignored" {
		if l.bug == "done context releases the lock" {
			l.mu.Lock()
			l.state(l.name).holds = nil
			l.mu.Unlock()
		}
		return nil, l.contextError(ctx)
	}
	h := &memoryHold{
		lock: l, shared: shared, held: held,
		granted: make(chan bool), refused: make(chan bool),
	}
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
		case <-h.refused:
			return nil, l.contextError(canceled)
		case <-done:
			if !l.giveUp(h) {
				return nil, l.contextError(ctx)
			}
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

// giveUp withdraws h, which may have been granted meanwhile. It returns false: a bug can let h
// count as granted.
func (l *memoryLock) giveUp(h *memoryHold) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.state(l.name)
	granted := slices.Contains(s.holds, h)
	switch {
	case l.bug == "waiter that gave up gets the lock",
		l.bug == "grant that meets a cancellation is forgotten" && granted:
		return false
	case l.bug == "readers behind a writer that gave up are not woken" && !h.shared && !granted,
		l.bug == "grant that meets a cancellation wakes nobody" && granted:
		s.remove(h)
		return false
	case l.bug == "grant that meets a cancellation is handed on and returned" && granted:
		s.remove(h)
		s.grant(l.bug)
		return true
	}
	s.remove(h)
	s.grant(l.bug)
	if granted {
		return false
	}
	switch l.bug {
	case "waiter that gives up wakes the next":
		s.force()
	case "waiter that gives up takes along those behind it":
		s.queue = nil
	case "waiter that gives up takes along those of its lock value":
		s.refuse(func(o *memoryHold) bool { return o.lock == l })
	case "writer that gave up keeps new readers out":
		s.marked = !h.shared
	case "writer that gives up ends other holds of its lock value":
		s.holds = slices.DeleteFunc(s.holds, func(o *memoryHold) bool { return o.lock == l })
	case "writer that gives up takes along other writers":
		if !h.shared {
			s.refuse(func(o *memoryHold) bool { return !o.shared })
		}
	case "waiter that gives up ends the contexts of holders":
		cancelAll(s.holds)
	case "waiter that gives up ends all holds of its process":
		for _, s := range l.locks {
			s.holds = nil
		}
	case "canceled wait cancels those of longer names":
		for _, s := range l.longer(l.name) {
			s.refuse(func(*memoryHold) bool { return true })
		}
	}
	return false
}

// canceled is the context of waiters that a bug cancels.
var canceled = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// refuse makes waiters fail.
func (s *memoryState) refuse(which func(*memoryHold) bool) {
	s.queue = slices.DeleteFunc(s.queue, func(h *memoryHold) bool {
		if !which(h) {
			return false
		}
		close(h.refused)
		return true
	})
}

// force gives the lock to the first in the queue, whoever holds it.
func (s *memoryState) force() {
	if len(s.queue) > 0 {
		h := s.queue[0]
		s.queue = s.queue[1:]
		s.holds = append(s.holds, h)
		close(h.granted)
	}
}

func cancelAll(holds []*memoryHold) {
	for _, h := range holds {
		h.cancel(fasteners.ErrLost)
	}
}

// longer returns the locks whose names begin with name, but for that of this name.
func (m *memory) longer(name string) (longer []*memoryState) {
	for n, s := range m.locks {
		if n != name && strings.HasPrefix(n, name) {
			longer = append(longer, s)
		}
	}
	return longer
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
	switch m.bug {
	case "long names are cut":
		name = name[:min(len(name), 63)]
	case "names are cut at slashes":
		name, _, _ = strings.Cut(name, "/")
	}
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
	if s.marked && h.shared && len(s.holds) > 0 {
		return false
	}
	s.marked = false
	if bug == "longer names exclude" && slices.ContainsFunc(h.lock.longer(h.lock.name),
		func(s *memoryState) bool { return len(s.holds) > 0 }) {
		return false
	}
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
	case "release without a hold wakes the next":
		s.force()
	case "release without a hold ends the contexts of holders":
		cancelAll(s.holds)
	case "release without a hold ends those of longer names":
		for _, s := range l.longer(l.name) {
			s.holds = nil
		}
	case "release without a hold ends those of other locks":
		for _, s := range l.locks {
			s.holds = nil
		}
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
	switch {
	case l.bug == "release wakes those of longer names":
		for _, s := range l.longer(l.name) {
			s.force()
		}
	case l.bug == "release ends the contexts of longer names":
		for _, s := range l.longer(l.name) {
			cancelAll(s.holds)
		}
	case h.lost && l.bug == "release of a lost hold wakes the next":
		s.force()
	}
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
