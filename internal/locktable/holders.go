package locktable

import (
	"errors"
	"os"
	"slices"
	"time"
)

// A Holder is a process that holds a lock or waits for it. All that it says is a hint, which may be out of
// date.
type Holder struct {
	PID     int // 0 if unknown
	Mode    Mode
	Waiting bool      // it does not hold the lock, but waits for it
	Since   time.Time // zero if unknown
	Opened  bool      // it is only known to have the file open, and may hold the lock or wait
}

// A WaitError is the error of an Acquire whose context was done while it waited.
type WaitError struct {
	ID      ID       // of the lock file
	Holders []Holder // of the lock, as far as they are known without asking more than one question
	Err     error    // of the context
}

func (e *WaitError) Error() string { return e.Err.Error() }
func (e *WaitError) Unwrap() error { return e.Err }

// An instant is a time since the start of the program. It takes less time to get, and less memory, than a
// time.Time.
type instant time.Duration

var start = time.Now()

func now() instant { return instant(time.Since(start)) }

func (i instant) time() time.Time { return start.Add(time.Duration(i)) }

// Holders returns the holders of the lock on the file that path names, in this and in other processes, and
// if waiters is true, behind them the goroutines and processes that wait for it. There are none if the file
// does not exist.
func (t *Table) Holders(path string, waiters bool) (id ID, holders []Holder, err error) {
	var all []Holder
	asked := now()
	for range maxRetries {
		if id, err = t.system.Identify(path); err == nil {
			all, err = t.otherHolders(path, id)
		}
		if !errors.Is(err, ErrRetry) {
			break
		}
	}
	if isNotExist(err) {
		return id, nil, nil
	}
	t.mu.Lock()
	if e := t.entries[id]; e != nil {
		all = e.addOwnLocked(all, waiters, asked)
	}
	t.mu.Unlock()
	var waiting []Holder
	for _, h := range all {
		switch {
		case !h.Waiting:
			holders = append(holders, h)
		case waiters:
			waiting = append(waiting, h)
		}
	}
	if len(all) > 0 {
		err = nil // they are an answer
	}
	return id, append(holders, waiting...), err
}

// otherHolders returns what the system knows of other processes. Of many goroutines that ask at the same
// time, one uses a descriptor: each would open one, which may not be closed before the lock is free.
func (t *Table) otherHolders(path string, id ID) ([]Holder, error) {
	defer t.ask(id)()
	f, openErr := t.borrow(path, id)
	holders, err := t.system.Holders(id, f)
	if f != nil {
		t.adopt(f, id)
	} else if err == nil {
		err = openErr
	}
	return holders, err
}

// ask waits until no other goroutine asks about the file id. The caller has to call done.
func (t *Table) ask(id ID) (done func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.asking[id] != nil {
		other := t.asking[id]
		t.mu.Unlock()
		<-other
		t.mu.Lock()
	}
	asked := make(chan struct{})
	t.asking[id] = asked
	return func() {
		t.mu.Lock()
		delete(t.asking, id)
		t.mu.Unlock()
		close(asked)
	}
}

// addOwnLocked adds this process to the holders, and its goroutines that wait if waiters is true: there can be
// thousands. The system was asked since that time.
func (e *entry) addOwnLocked(all []Holder, waiters bool, asked instant) []Holder {
	if e.blockedReaderLocked(asked) {
		// A reader that waits in the kernel has no tag, so it is among all without its PID.
		isOwn := func(h Holder) bool { return h == Holder{Mode: Shared, Waiting: true} }
		if i := slices.IndexFunc(all, isOwn); i >= 0 {
			all = slices.Delete(all, i, i+1)
		}
	}
	switch e.state {
	case held:
		all = slices.Insert(all, 0, e.ownLocked())
	case waiting:
		if !slices.ContainsFunc(all, func(h Holder) bool { return !h.Waiting }) {
			all = append(all, Holder{Mode: Exclusive}) // somebody holds it
		}
		all = append(all, Holder{PID: pid, Mode: e.leader.mode, Waiting: true, Since: e.leader.since.time()})
	}
	for w := e.queue.head; w != nil && waiters; w = w.next {
		all = append(all, Holder{PID: pid, Mode: w.mode, Waiting: true, Since: w.since.time()})
	}
	return all
}

// blockedReaderLocked reports whether a reader of this process has waited in the kernel since that time. It
// need not do so any more: a recheck takes it out for a moment.
func (e *entry) blockedReaderLocked(since instant) bool {
	isBlocked := e.state == waiting && e.leader.blocked && e.leader.mode == Shared
	return isBlocked || e.unblockedMode == Shared && e.unblockedAt >= since
}

// borrow returns a descriptor of the file id for a question. The caller has to give it to adopt.
func (t *Table) borrow(path string, id ID) (File, error) {
	t.mu.Lock()
	if e := t.entries[id]; e != nil && e.spare != nil {
		f := e.spare
		e.spare = nil
		t.mu.Unlock()
		return f, nil
	}
	t.mu.Unlock()
	f, opened, err := t.system.Open(path, Shared)
	if err == nil && opened != id {
		t.adopt(f, opened)
		return nil, errReplaced
	}
	return f, err
}

var pid = os.Getpid()

// ownLocked returns this process as the holder of the lock.
func (e *entry) ownLocked() Holder {
	return Holder{PID: pid, Mode: e.mode, Since: e.since.time()}
}

// For how long an answer of the kernel about the holder is good enough: for the error of a wait, as thousands
// of goroutines can give up at the same time; and for a leader that polls, as it may have to ask a server.
const (
	freshHolder  = time.Millisecond
	recentHolder = time.Second
)

// waitErrorLocked returns the error of a goroutine that has given up its wait and left the queue.
func (e *entry) waitErrorLocked(err error) *WaitError {
	w := &WaitError{ID: e.id, Err: err}
	if e.state == held {
		w.Holders = []Holder{e.ownLocked()}
		return w
	}
	if e.state == waiting && e.leader.blocked {
		e.awaitCheckLocked()
	}
	if e.state == waiting && e.leader.blocked {
		e.askHolderLocked()
	}
	if e.heldByOther && time.Duration(now()-e.heldByAt) < 2*recentHolder {
		w.Holders = []Holder{e.heldBy}
	}
	return w
}

func (e *entry) waitError(err error) error {
	e.table.mu.Lock()
	defer e.table.mu.Unlock()
	return e.waitErrorLocked(err)
}

// setHeldByLocked notes the answer of File.Holder.
func (e *entry) setHeldByLocked(h Holder, ok bool) {
	e.heldBy, e.heldByOther, e.heldByAt = h, ok, now()
}

// askHolderLocked asks the kernel who holds the lock, unless the last answer is fresh. The leader is blocked,
// and there is no check.
func (e *entry) askHolderLocked() {
	if time.Duration(now()-e.heldByAt) <= e.table.freshHolder {
		return
	}
	var h Holder
	var ok bool
	e.checkLocked(func() { h, ok = e.file.Holder() })
	e.setHeldByLocked(h, ok)
}

// askHolder asks the kernel who holds the lock, unless the last answer is younger than maxAge. The caller
// leads, and is not blocked.
func (e *entry) askHolder(maxAge time.Duration) {
	e.table.mu.Lock()
	defer e.table.mu.Unlock()
	if e.file == nil || e.heldByOther && time.Duration(now()-e.heldByAt) < maxAge {
		return
	}
	e.table.mu.Unlock()
	h, ok := e.file.Holder()
	e.table.mu.Lock()
	e.setHeldByLocked(h, ok)
}
