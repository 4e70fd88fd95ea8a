package locktable

import (
	"context"
	"errors"
	"math"
	"os"
	"slices"
	"time"
)

// A Holder is a process that holds a lock or waits for it. All that it says is a hint, which
// may be out of date.
type Holder struct {
	PID     int // 0 if unknown
	Mode    Mode
	Waiting bool      // it does not hold the lock, but waits for it
	Since   time.Time // zero if unknown
	Opened  bool      // it is only known to have the file open, and may hold the lock or wait

	// Unchecked means that PID is what the lock says. The process may have ended, and have left
	// the lock to another one, and its ID as well.
	Unchecked bool
}

// A WaitError is the error of an Acquire whose context was done while it waited, and somebody
// else held the lock.
type WaitError struct {
	ID      ID       // of the lock file
	Holders []Holder // of the lock, as far as they are known without asking more than one question
	Err     error    // of the context
}

func (e *WaitError) Error() string { return e.Err.Error() }
func (e *WaitError) Unwrap() error { return e.Err }

// start is the start of the program. A time since then takes less time to get, and less memory,
// than a time.Time.
var start = time.Now()

// Holders returns the holders of the lock on the file that path names, in this and in other
// processes, and if waiters is true, behind them the goroutines and processes that wait for it.
// There are none if the file does not exist. It returns ctx.Err() if ctx is done before its turn
// comes to ask the system.
func (t *Table) Holders(ctx context.Context, path string, waiters bool) (id ID, holders []Holder, err error) {
	var all []Holder
	asked := time.Since(start)
	for range maxRetries {
		if id, err = t.system.Identify(path); err == nil {
			all, err = t.otherHolders(ctx, path, id)
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

// A question is the one that a goroutine asks the system about a file, and the answer. Table.mu
// protects the answer.
type question struct {
	path    string
	over    chan struct{} // closed when there is an answer
	holders []Holder
	err     error
}

// otherHolders returns what the system knows of all processes. Of many goroutines that ask about a
// file at the same time, one does, for all that have come before it began:
//
//	A asks, B and C come
//	A has its answer: that is too old for B and C, who may know more
//	B asks, D comes, C takes the answer of B
func (t *Table) otherHolders(ctx context.Context, path string, id ID) ([]Holder, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t.mu.Lock()
	for began := false; t.asking[id] != nil; began = true {
		q := t.asking[id]
		t.mu.Unlock()
		select {
		case <-q.over:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		t.mu.Lock()
		if began && (q.err == nil || q.path == path) {
			t.mu.Unlock()
			return slices.Clone(q.holders), q.err
		}
	}
	q := &question{path: path, over: make(chan struct{})}
	t.asking[id] = q
	t.mu.Unlock()

	holders, err := t.askSystem(path, id)

	t.mu.Lock()
	defer t.mu.Unlock()
	q.holders, q.err = slices.Clone(holders), err
	delete(t.asking, id)
	close(q.over)
	return holders, err
}

// askSystem uses another descriptor than the leader, and closes it as soon as it may: where locks
// belong to the process that would drop the lock of another goroutine.
func (t *Table) askSystem(path string, id ID) ([]Holder, error) {
	f, openErr := t.borrow(path, id)
	holders, err := t.system.Holders(id, f)
	switch {
	case f != nil && err == nil && !f.OwnedByProcess():
		_ = f.Close()
	case f != nil:
		t.adopt(f, id)
	case err == nil:
		err = openErr
	}
	return holders, err
}

// addOwnLocked adds the goroutines that hold the lock through the entry to the holders, and those
// that wait if waiters is true: there can be thousands. The system was asked since that time, and
// may have told of this process as well.
func (e *entry) addOwnLocked(all []Holder, waiters bool, asked time.Duration) []Holder {
	// Otherwise this process holds the lock by other means than the entry.
	isHolder := e.state == held || e.state == locking || e.releasedAt.Sub(start) >= asked
	all = slices.DeleteFunc(all, func(h Holder) bool { return h.PID == pid && (h.Waiting || isHolder) })
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
		all = append(all, Holder{PID: pid, Mode: e.leader.mode, Waiting: true, Since: start.Add(e.leader.since)})
	}
	for w := e.queue.head; w != nil && waiters; w = w.next {
		all = append(all, Holder{PID: pid, Mode: w.mode, Waiting: true, Since: start.Add(w.since)})
	}
	return all
}

// blockedReaderLocked reports whether a reader of this process has waited in the kernel since
// that time. It need not do so any more: a recheck takes it out for a moment.
func (e *entry) blockedReaderLocked(since time.Duration) bool {
	isBlocked := e.state == waiting && e.leader.blocked && e.leader.mode == Shared
	return isBlocked || e.left >= since
}

var pid = os.Getpid()

// ownLocked returns this process as the holder of the lock.
func (e *entry) ownLocked() Holder {
	return Holder{PID: pid, Mode: e.mode, Since: start.Add(e.since)}
}

// An otherHolder is another process that held the lock when it was last asked for. Table.mu
// protects it.
type otherHolder struct {
	holder Holder
	known  bool          // there was one
	at     time.Duration // since start
}

// recentHolder is for how long an answer of the kernel is good enough for a leader that polls,
// as it may have to ask a server.
const recentHolder = time.Second

// noteLocked notes the answer of File.Holder.
func (o *otherHolder) noteLocked(h Holder, known bool) { *o = otherHolder{h, known, time.Since(start)} }

func (o *otherHolder) isYoungerLocked(age time.Duration) bool {
	return o.known && time.Since(start)-o.at < age
}

// askHolder asks the kernel who holds the lock, unless the last answer is younger than maxAge.
// The caller leads, and is not blocked.
func (e *entry) askHolder(maxAge time.Duration) {
	t := e.table
	t.mu.Lock()
	f, knows := e.file, e.other.isYoungerLocked(maxAge)
	t.mu.Unlock()
	if f == nil || knows {
		return
	}
	h, known := f.Holder()
	t.mu.Lock()
	e.other.noteLocked(h, known)
	t.mu.Unlock()
}

// never is later than any time since start, and longAgo is earlier.
const (
	never   = time.Duration(math.MaxInt64)
	longAgo = time.Duration(math.MinInt64)
)

// waitError returns the error of a goroutine that gives up, and that has waited since then. It
// is a *WaitError if somebody else held the lock meanwhile: a waiter may also have waited for a
// goroutine that was about to acquire a free lock, or to close its file.
func (e *entry) waitError(err error, since time.Duration) error {
	if e == nil || since == never {
		return err
	}
	e.table.mu.Lock()
	defer e.table.mu.Unlock()
	w := &WaitError{ID: e.id, Err: err}
	switch {
	case e.state == held:
		w.Holders = []Holder{e.ownLocked()}
	case e.state != waiting && e.heldUntil < since:
		return err
	case e.other.isYoungerLocked(2 * recentHolder):
		w.Holders = []Holder{e.other.holder}
	}
	return w
}
