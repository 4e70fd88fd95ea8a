package locktable

import "time"

// files are the open descriptors of a lock file. There should be one, but a goroutine that
// opens a file by its path can find that another one has done so, or that the path names
// another file by now. It must not close what it has opened: where locks belong to the process,
// that would drop the lock that another goroutine may have acquired on the file meanwhile.
type files struct {
	// file is what the lock is held through, or nil. It belongs to the leader, and to Table.mu
	// while there is none. The holders may use it, too, and whoever has the turn in
	// Table.checking.
	file File

	// Table.mu protects these.
	others     []File    // to be closed when the lock is free; until then, questions may borrow them
	releasedAt time.Time // when the lock was last released
	usedAt     time.Time // when file was last used
	timer      *time.Timer
	timerIsSet bool
	isKnown    bool // whether locks belong to the process: the file has been locked through file
}

// tryLock asks the kernel once, through a descriptor that it opens if there is none. It returns
// ErrBusy only if the path names the file of this entry: otherwise there is nothing to wait
// for. The caller leads.
func (e *entry) tryLock(r *Request, mode Mode) error {
	if e.file != nil && !e.file.Permits(mode) {
		f := e.file
		e.file, e.isKnown = nil, false
		if err := f.Close(); err != nil {
			return err
		}
	}
	if e.file == nil {
		f, id, err := e.table.system.Open(r.Path, mode)
		switch {
		case isNotExist(err):
			return errRemoved
		case err != nil:
			return err
		case id != e.id:
			e.table.adopt(f, id)
			return errReplaced
		}
		e.file = f
	}
	ok, err := e.file.TryLock(mode)
	if ok || err != nil {
		e.isKnown = ok
		return err
	}
	same, err := e.table.system.SameFile(r.Path, e.id)
	switch {
	case err != nil:
		return err
	case !same:
		return errReplaced
	}
	return ErrBusy
}

// adopt gives an open descriptor to the entry of its file.
func (t *Table) adopt(f File, id ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.entryLocked(id).adoptLocked(f)
}

// adoptLocked keeps the descriptor of an idle entry as if the lock had just been released.
func (e *entry) adoptLocked(f File) {
	if e.state == idle && e.file == nil {
		e.file, e.usedAt = f, time.Now()
	} else {
		e.others = append(e.others, f)
	}
	if e.state == idle {
		e.closeLaterLocked()
	}
}

// borrow returns a descriptor of the file id for a question. The caller has to give it to adopt, or
// to close it if locks do not belong to the process.
func (t *Table) borrow(path string, id ID) (File, error) {
	t.mu.Lock()
	if e := t.entries[id]; e != nil && len(e.others) > 0 {
		last := len(e.others) - 1
		f := e.others[last]
		e.others = e.others[:last]
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

// takeUnusedLocked takes the descriptors that a leader that steps down has to close: all but
// the one that the file is locked through, and that one, too, unless keep is true and somebody
// may use it.
func (e *entry) takeUnusedLocked(keep bool) (file File, others []File) {
	others, e.others = e.others, nil
	if !keep || e.queue.head == nil && e.table.idleTimeout == 0 {
		file, e.file, e.isKnown = e.file, nil, false
	}
	return file, others
}

// closeLaterLocked schedules closeIdle for an idle entry.
func (e *entry) closeLaterLocked() {
	if e.timerIsSet {
		return
	}
	e.timerIsSet = true
	d := max(0, e.table.idleTimeout-time.Since(e.usedAt))
	if e.timer == nil {
		e.timer = time.AfterFunc(d, e.closeIdle)
	} else {
		e.timer.Reset(d)
	}
}
