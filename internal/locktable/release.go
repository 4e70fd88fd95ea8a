package locktable

import "time"

// release ends one hold. If path is not empty, it is known to name the file. The last holder does one of
// three things:
//
//   - If a writer is next in the queue after a writer, and the time slice is not over, it hands the lock on
//     without a system call.
//   - If readers are next after a writer, and the time slice is not over, it downgrades the lock for them.
//   - Otherwise it unlocks the file and steps down.
func (e *entry) release(path string) error {
	e.table.mu.Lock()
	e.table.setPathLocked(e, path)
	e.releasedAt = time.Now()
	e.holders--
	if e.holders > 0 {
		e.table.mu.Unlock()
		return nil
	}
	next := e.queue.head
	over := next == nil || !e.releasedAt.Before(e.sliceEnd)
	if !over && e.mode == Exclusive && next.mode == Exclusive {
		e.queue.pop()
		e.holders, e.since = 1, instant(e.releasedAt.Sub(start))
		if next.request.Path == path {
			next.resolve(grantedSame)
		} else {
			next.resolve(granted)
		}
		e.table.mu.Unlock()
		return nil
	}
	e.state = locking
	e.awaitCheckLocked()
	if over {
		e.sliceEnd = time.Time{}
		e.mustYield = next != nil
	}
	e.table.mu.Unlock()

	if !over && e.mode == Exclusive && e.file.Downgrade() == nil {
		e.table.mu.Lock()
		// Only a leader pops waiters, but those that give up leave the queue by themselves.
		if w := e.queue.head; w != nil && w.mode == Shared {
			e.queue.pop()
			e.becomeHeldLocked(Shared)
			w.resolve(granted)
			e.table.mu.Unlock()
			return nil
		}
		e.table.mu.Unlock()
	}
	return e.unlockAndStepDown(true)
}

// unlockAndStepDown is called by a leader. See stepDown for keep.
func (e *entry) unlockAndStepDown(keep bool) error {
	if e.file == nil {
		return e.stepDown(keep)
	}
	// Closing the file would not do: a child of this process that is between fork and exec has the
	// descriptor, too, and would keep the lock.
	err := e.file.Unlock()
	if closeErr := e.stepDown(keep && err == nil); err == nil {
		err = closeErr
	}
	return err
}

// stepDown is called by a leader that has not locked the file: the next in the queue leads, if there is
// one. It closes the descriptor of the entry unless keep is true and somebody may use it.
func (e *entry) stepDown(keep bool) (err error) {
	e.table.mu.Lock()
	defer e.table.mu.Unlock()
	for {
		others := e.pendingClose
		e.pendingClose = nil
		if e.spare != nil {
			others = append(others, e.spare)
			e.spare = nil
		}
		done := !keep || e.queue.head == nil && e.table.idleTimeout == 0
		if len(others) == 0 && (e.file == nil || !done) {
			break
		}
		e.table.mu.Unlock()
		for _, f := range others {
			_ = f.Close()
		}
		if done {
			if closeErr := e.close(); err == nil {
				err = closeErr
			}
		}
		e.table.mu.Lock()
	}

	if w := e.queue.pop(); w != nil {
		e.state = locking
		w.resolve(leading)
		return err
	}
	e.state, e.mustYield, e.sliceEnd = idle, false, time.Time{}
	if e.file == nil {
		e.table.removeLocked(e)
		return err
	}
	e.closeLaterLocked()
	return err
}

// downgrade converts the only hold, which is exclusive, to a shared one.
func (e *entry) downgrade() error {
	e.table.mu.Lock()
	e.state = locking
	e.table.mu.Unlock()
	err := e.file.Downgrade()
	mode := Shared
	if err != nil {
		mode = Exclusive
	}
	e.table.mu.Lock()
	e.becomeHeldLocked(mode)
	e.table.mu.Unlock()
	return err
}

// close closes the descriptor of the entry, if it has one. The caller leads.
func (e *entry) close() error {
	if e.file == nil {
		return nil
	}
	f := e.file
	e.file = nil
	return f.Close()
}

// closeLaterLocked schedules closeIdle for an idle entry.
func (e *entry) closeLaterLocked() {
	if e.idleTimerSet {
		return
	}
	e.idleTimerSet = true
	d := max(0, e.table.idleTimeout-time.Since(e.releasedAt))
	if e.idleTimer == nil {
		e.idleTimer = time.AfterFunc(d, e.closeIdle)
	} else {
		e.idleTimer.Reset(d)
	}
}

// closeIdle closes the descriptor of an entry that has been idle for idleTimeout. For an entry that is not
// idle now, its release will schedule closeIdle again. One without a descriptor has left the table, which
// may have another entry for the file.
func (e *entry) closeIdle() {
	e.table.mu.Lock()
	e.idleTimerSet = false
	if e.state != idle || e.file == nil && e.spare == nil && len(e.pendingClose) == 0 {
		e.table.mu.Unlock()
		return
	}
	if time.Since(e.releasedAt) < e.table.idleTimeout {
		e.closeLaterLocked()
		e.table.mu.Unlock()
		return
	}
	e.state = locking
	e.table.mu.Unlock()
	_ = e.stepDown(false)
}
