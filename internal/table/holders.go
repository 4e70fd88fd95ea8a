package table

import (
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
// if waiters is true, the goroutines and processes that wait for it. There are none if the file does not
// exist.
func (t *Table) Holders(path string, waiters bool) (ID, []Holder, error) {
	id, err := t.system.Identify(path)
	if isNotExist(err) {
		return id, nil, nil
	}
	if err != nil {
		return id, nil, err
	}
	t.asking.Lock()
	f, openErr := t.borrow(path, id)
	others, err := t.system.Holders(id, f)
	if f != nil {
		t.adopt(f, id)
	} else if err == nil && !isNotExist(openErr) {
		err = openErr // unless there is an answer all the same
	}
	t.asking.Unlock()
	if !waiters {
		others = slices.DeleteFunc(others, func(h Holder) bool { return h.Waiting })
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	var holders []Holder
	e := t.entries[id]
	if e != nil && e.state == held {
		holders = append(holders, e.ownLocked())
	}
	if e != nil && e.state == waiting && e.leader.blocked && e.leader.mode == Shared {
		// The request of the leader, which is among others: as a reader that waits, it has no tag.
		isLeader := func(h Holder) bool { return h.Waiting && h.Mode == Shared && h.PID == 0 }
		if i := slices.IndexFunc(others, isLeader); i >= 0 {
			others = slices.Delete(others, i, i+1)
		}
	}
	holders = append(holders, others...)
	if e != nil {
		if e.state == waiting {
			if !slices.ContainsFunc(holders, func(h Holder) bool { return !h.Waiting }) {
				holders = append(holders, Holder{Mode: Exclusive}) // somebody holds it
			}
			if waiters {
				holders = append(holders, Holder{PID: pid, Mode: e.leader.mode, Waiting: true, Since: e.leader.since.time()})
			}
		}
		for w := e.queue.head; w != nil && waiters; w = w.next {
			holders = append(holders, Holder{PID: pid, Mode: w.mode, Waiting: true, Since: w.since.time()})
		}
	}
	if len(holders) > 0 {
		err = nil // they are an answer
	}
	slices.SortStableFunc(holders, func(a, b Holder) int {
		switch {
		case a.Waiting == b.Waiting:
			return 0
		case a.Waiting:
			return 1
		}
		return -1
	})
	return id, holders, err
}

// WaitError returns the error of a caller that has found the lock held, and whose context was done before it
// could wait.
func (t *Table) WaitError(path string, err error) *WaitError {
	id, identifyErr := t.system.Identify(path)
	if identifyErr != nil {
		return &WaitError{Err: err}
	}
	t.mu.Lock()
	w := &WaitError{ID: id, Err: err}
	if e := t.entries[id]; e != nil {
		w = e.waitErrorLocked(err)
	}
	t.mu.Unlock()
	if len(w.Holders) > 0 {
		return w
	}

	if !t.asking.TryLock() {
		return w // not to wait for others, whose file can be on a slow server
	}
	defer t.asking.Unlock()
	if f, _ := t.borrow(path, id); f != nil {
		if h, ok := f.Holder(); ok {
			w.Holders = []Holder{h}
		}
		t.adopt(f, id)
	}
	return w
}

// borrow returns a descriptor of the file id for questions, which the caller has to give to adopt.
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
