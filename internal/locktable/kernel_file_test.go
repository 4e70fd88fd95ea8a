package locktable

import (
	"context"
	"errors"
	"os"
	"slices"
)

// A descriptor is an open file of the simulated kernel, and the File of a table.
type descriptor struct {
	*proc
	ino  *inode
	only Mode // if not 0, the only mode that it permits

	running []string // the methods that have not returned, except Pending
}

var _ File = (*descriptor)(nil)

// begin notes that a method begins, until end is called, and checks that the table may call it now.
func (d *descriptor) begin(method string) (end func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, other := range d.running {
		if !d.dead && (other != "wait" || method != "lock pending") && (other != "lock pending" || method != "wait") {
			d.fault("process %d calls %q during %q on the same descriptor", d.pid, method, other)
		}
	}
	d.running = append(d.running, method)
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		i := slices.Index(d.running, method)
		d.running = slices.Delete(d.running, i, i+1)
	}
}

// owner returns the owner of the locks that are taken through d.
func (d *descriptor) owner() any {
	if d.ownsLocks {
		return d.proc
	}
	return d
}

func (d *descriptor) CanWait() bool { return !d.ownsLocks }

func (d *descriptor) OwnedByProcess() bool { return d.ownsLocks }

func (d *descriptor) Permits(mode Mode) bool { return d.only == 0 || d.only == mode }

// free reports whether d could be locked in mode. Pending blocks readers, not writers.
func (d *descriptor) free(mode Mode) bool {
	if p := d.ino.pending; mode == Shared && p != nil && p != d.owner() {
		return false
	}
	for owner, held := range d.ino.locks {
		if owner != d.owner() && (held == Exclusive || mode == Exclusive) {
			return false
		}
	}
	return true
}

func (d *descriptor) TryLock(mode Mode) (ok bool, err error) {
	defer d.begin("try")()
	err = d.call("try", always, func() error {
		d.mustBeOpen("locked")
		if d.ino.locks[d.owner()] != 0 {
			d.fault("process %d locks a file that it has already locked", d.pid)
		}
		if ok = d.free(mode); ok {
			d.lock(mode)
		}
		return nil
	})
	return ok, err
}

func (d *descriptor) lock(mode Mode) {
	d.mustBeOpen("locked")
	if !d.Permits(mode) {
		d.fault("process %d locks a file in a mode that its descriptor does not permit", d.pid)
	}
	d.ino.locks[d.owner()] = mode
	d.ino.lockedAt[d.proc] = d.now
}

// Wait with interceptWaits consists of up to three calls. In any order that the interceptor likes:
//
//	wait      locks the file; ready when the lock is free, or the wait was withdrawn
//	withdraw  made by another goroutine when ctx is done
//	return    comes after wait: ctx may end, and withdraw happen, after the lock was granted
//
// As in the real kernel, a wait can be granted after ctx is done and before it is withdrawn.
func (d *descriptor) Wait(ctx context.Context, mode Mode) error {
	defer d.begin("wait")()
	if d.ownsLocks {
		return errors.ErrUnsupported
	}
	if !d.interceptWaits {
		return d.waitWithoutCalls(ctx, mode)
	}
	withdrawn := false
	stop := context.AfterFunc(ctx, func() {
		_ = d.call("withdraw", always, func() error { withdrawn = true; return nil })
	})
	defer stop()
	ready := func() bool { return d.dead || withdrawn || d.free(mode) }
	locked := false
	err := d.call("wait", ready, func() error {
		if locked = !withdrawn; locked {
			d.lock(mode)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return d.call("return", always, func() error {
		if !locked {
			return ctx.Err()
		}
		return nil
	})
}

func (d *descriptor) waitWithoutCalls(ctx context.Context, mode Mode) error {
	stop := context.AfterFunc(ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.wakeWaiters()
	})
	defer stop()
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		switch fail := d.fail["wait"]; {
		case d.dead:
			return errDead
		case fail != nil:
			delete(d.fail, "wait")
			return fail
		case ctx.Err() != nil:
			return ctx.Err()
		case d.free(mode):
			d.lock(mode)
			return nil
		}
		changed := d.changed
		d.mu.Unlock()
		<-changed
		d.mu.Lock()
	}
}

func (d *descriptor) Unlock() error {
	defer d.begin("unlock")()
	return d.call("unlock", always, func() error {
		d.mustBeOpen("unlocked")
		d.dropLocks()
		return nil
	})
}

// dropLocks drops all that the owner has locked.
func (d *descriptor) dropLocks() {
	delete(d.ino.locks, d.owner())
	if d.ino.pending == d.owner() {
		d.ino.pending = nil
	}
	d.wakeWaiters()
}

func (d *descriptor) LockPending() error {
	defer d.begin("lock pending")()
	return d.call("lock pending", always, func() error {
		d.mustBeOpen("locked")
		readers := false
		for owner, held := range d.ino.locks {
			readers = readers || owner != d.owner() && held == Shared
		}
		if readers && d.ino.pending == nil {
			d.ino.pending = d.owner()
		}
		return nil
	})
}

// Pending may be called at any time: see File.
func (d *descriptor) Pending() (pending bool, err error) {
	err = d.call("pending", always, func() error {
		d.mustBeOpen("asked for pending")
		pending = d.ino.pending != nil && d.ino.pending != d.owner()
		return nil
	})
	return pending, err
}

func (d *descriptor) Downgrade() error {
	defer d.begin("downgrade")()
	return d.call("downgrade", always, func() error {
		d.mustBeOpen("downgraded")
		if d.ino.locks[d.owner()] != Exclusive {
			d.fault("process %d downgrades a file that it has not locked exclusively", d.pid)
		}
		d.ino.locks[d.owner()] = Shared
		if d.ino.pending == d.owner() {
			d.ino.pending = nil
		}
		d.wakeWaiters()
		return nil
	})
}

func (d *descriptor) Duplicate() (*os.File, error) { return nil, errors.ErrUnsupported }

func (d *descriptor) Close() error {
	defer d.begin("close")()
	return d.call("close", always, func() error {
		d.mustBeOpen("closed")
		if d.ino.locks[d.owner()] != 0 {
			d.fault("process %d closes a file that it has locked", d.pid)
		}
		if d.ino.pending == d.owner() {
			d.fault("process %d closes a file on which it has locked pending", d.pid)
		}
		d.dropLocks()
		d.forget(d)
		return nil
	})
}

func (d *descriptor) mustBeOpen(done string) {
	if !slices.Contains(d.kernel.open, d) {
		d.fault("process %d: a closed descriptor is %s", d.pid, done)
	}
}

// descriptors returns the open descriptors of the process.
func (p *proc) descriptors() []*descriptor {
	var own []*descriptor
	for _, d := range p.open {
		if d.proc == p {
			own = append(own, d)
		}
	}
	return own
}

// forget removes d from the open descriptors.
func (k *kernel) forget(d *descriptor) {
	k.open = slices.DeleteFunc(k.open, func(o *descriptor) bool { return o == d })
}
