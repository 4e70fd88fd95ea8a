package locktable

import "time"

// release ends one hold. If path is not empty, it is known to name the file. The last holder
// does one of three things:
//
//   - If a writer is next in the queue after a writer, and the time slice is not over, it hands
//     the lock on without a system call.
//   - If readers are next after a writer, and the time slice is not over, it downgrades the
//     lock for them.
//   - Otherwise it unlocks the file and steps down.
func (e *entry) release(path string) error {
	t := e.table
	t.mu.Lock()
	t.setPathLocked(e, path)
	e.releasedAt = time.Now()
	e.usedAt = e.releasedAt
	e.heldUntil = e.releasedAt.Sub(start)
	e.holders--
	if e.holders > 0 {
		t.mu.Unlock()
		return nil
	}
	next := e.queue.head
	handsOn := next != nil && e.mode == Exclusive && e.releasedAt.Before(e.slice.end)
	if handsOn && next.mode == Exclusive {
		e.handOnLocked(path)
		t.mu.Unlock()
		return nil
	}
	if next == nil || !e.releasedAt.Before(e.slice.end) {
		e.slice.endLocked(next != nil)
	}
	e.leadLocked()
	check := t.checking[e] // no other begins
	t.mu.Unlock()
	if check != nil {
		<-check
	}

	if handsOn && e.file.Downgrade() == nil {
		t.mu.Lock()
		// Only a leader pops waiters, but those that give up leave the queue by themselves.
		if w := e.queue.head; w != nil && w.mode == Shared {
			e.queue.pop()
			e.holdLocked(Shared)
			w.resolve(granted)
			t.mu.Unlock()
			return nil
		}
		t.mu.Unlock()
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

// stepDown is called by a leader that has not locked the file: the next in the queue leads, if
// there is one. It closes the descriptors of the entry, but for the one to lock it through if
// keep is true and somebody may use that.
func (e *entry) stepDown(keep bool) (err error) {
	t := e.table
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		file, others := e.takeUnusedLocked(keep)
		if file == nil && len(others) == 0 {
			break
		}
		t.mu.Unlock()
		for _, f := range others {
			_ = f.Close()
		}
		if file != nil {
			err = file.Close()
		}
		t.mu.Lock()
	}
	switch {
	case e.passLeadLocked():
	case e.file == nil:
		e.restLocked()
		t.removeLocked(e)
	default:
		e.restLocked()
		e.closeLaterLocked()
	}
	return err
}

// closeIdle closes the descriptor of an entry that has been idle for idleTimeout. For an entry
// that is not idle now, its release will schedule closeIdle again. One without a descriptor has
// left the table, which may have another entry for the file.
//
// Closing can take its time, and nobody who comes meanwhile should wait for it. So the entry
// leaves the table before, unless locks belong to the process: then closing would drop the lock
// that a goroutine acquires through another descriptor.
func (e *entry) closeIdle() {
	t := e.table
	t.mu.Lock()
	e.timerIsSet = false
	if e.state != idle || e.file == nil && len(e.others) == 0 {
		t.mu.Unlock()
		return
	}
	if time.Since(e.usedAt) < t.idleTimeout {
		e.closeLaterLocked()
		t.mu.Unlock()
		return
	}
	if e.file != nil && e.isKnown && !e.file.OwnedByProcess() {
		file, others := e.takeUnusedLocked(false)
		t.removeLocked(e)
		t.mu.Unlock()
		for _, f := range append(others, file) {
			_ = f.Close()
		}
		return
	}
	e.leadLocked()
	t.mu.Unlock()
	_ = e.stepDown(false)
}

// downgrade converts the only hold, which is exclusive, to a shared one.
func (e *entry) downgrade() error {
	t := e.table
	t.mu.Lock()
	e.leadLocked()
	t.mu.Unlock()
	err := e.file.Downgrade()
	mode := Shared
	if err != nil {
		mode = Exclusive
	}
	t.mu.Lock()
	e.holdLocked(mode)
	t.mu.Unlock()
	return err
}
