package table

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A kernel has files with locks on them, and processes that use them. It stands in for the real one
// where a test wants every system call to happen when it says so.
type kernel struct {
	// sched, if there is one, decides when a system call happens. Of waits only if it asks whether a call
	// is ready.
	sched      func(*call)
	schedWaits bool

	mu      sync.Mutex
	changed chan struct{} // closed when a lock is dropped or a wait withdrawn, but with schedWaits
	names   map[string]*inode
	files   map[ID]*inode
	inodes  uint64
	now     int // counts system calls and removals
	open    []*descriptor
	faults  []string // of what the table did wrong
}

// An inode is a file. Its locks have owners: descriptors, or the processes that own their locks.
type inode struct {
	id      ID
	locks   map[any]Mode
	pending any // the owner of the lock on it, or nil

	// When a process has locked it last, and when it was removed.
	locked  map[*proc]int
	removed int
}

// A proc is a process, and the System of its table.
type proc struct {
	*kernel
	pid        int
	ownsLocks  bool // they go with any descriptor of the file, and nobody waits for them in the kernel
	dead       bool
	fail       map[string]error // what the next system call of a name fails with
	failAlways map[string]error // what each of them fails with
}

// A call is a system call that is to happen.
type call struct {
	proc  *proc
	name  string
	ready func() bool // whether it would not block
	do    func()
	done  chan struct{}
}

func newKernel(paths ...string) *kernel {
	k := &kernel{names: map[string]*inode{}, files: map[ID]*inode{}, changed: make(chan struct{})}
	for _, p := range paths {
		k.create(p)
	}
	return k
}

func (k *kernel) create(path string) *inode {
	k.inodes++
	ino := &inode{id: ID{1, k.inodes}, locks: map[any]Mode{}, locked: map[*proc]int{}}
	k.names[path] = ino
	k.files[ino.id] = ino
	return ino
}

// unlink takes the name of a file away.
func (k *kernel) unlink(path string) {
	if ino := k.names[path]; ino != nil {
		delete(k.names, path)
		k.now++
		ino.removed = k.now
	}
}

// change wakes those who wait in the kernel.
func (k *kernel) change() {
	close(k.changed)
	k.changed = make(chan struct{})
}

func (k *kernel) fault(format string, args ...any) {
	k.faults = append(k.faults, fmt.Sprintf(format, args...))
}

var errDead = errors.New("process is dead")

// call makes a system call, now or when the scheduler wants it. Of a dead process it does
// nothing.
func (p *proc) call(name string, ready func() bool, do func() error) (err error) {
	c := &call{p, name, ready, nil, make(chan struct{})}
	c.do = func() {
		p.now++
		switch fail := p.fail[name]; {
		case p.dead:
			err = errDead
		case fail != nil:
			delete(p.fail, name)
			err = fail
		case p.failAlways[name] != nil:
			err = p.failAlways[name]
		default:
			err = do()
		}
	}
	p.mu.Lock()
	sched := p.sched
	if sched == nil {
		c.do()
	}
	p.mu.Unlock()
	if sched != nil {
		sched(c)
		<-c.done
	}
	return err
}

// setSched is for when system calls may be under way.
func (k *kernel) setSched(sched func(*call)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sched = sched
}

// count makes system calls of a name, or all, count up n.
func (k *kernel) count(n *atomic.Int64, name string) {
	k.setSched(func(c *call) {
		if name == "" || c.name == name {
			n.Add(1)
		}
		k.mu.Lock()
		c.do()
		k.mu.Unlock()
		close(c.done)
	})
}

func always() bool { return true }

func (p *proc) Identify(path string) (id ID, err error) {
	err = p.call("identify", always, func() error {
		ino := p.names[path]
		if ino == nil {
			return fs.ErrNotExist
		}
		id = ino.id
		return nil
	})
	return id, err
}

func (p *proc) SameFile(path string, id ID) (named bool, err error) {
	err = p.call("same file", always, func() error {
		named = p.names[path] != nil && p.names[path].id == id
		return nil
	})
	return named, err
}

func (p *proc) Open(path string, mode Mode) (f File, id ID, err error) {
	err = p.call("open", always, func() error {
		if p.names[path] == nil {
			return fs.ErrNotExist
		}
		f, id = p.descriptor(path, mode)
		return nil
	})
	return f, id, err
}

func (p *proc) Create(path string, mode Mode, perm fs.FileMode) (f File, id ID, err error) {
	err = p.call("create", always, func() error {
		if p.names[path] == nil {
			p.create(path)
		}
		f, id = p.descriptor(path, mode)
		return nil
	})
	return f, id, err
}

// Watch tells nothing, so that a process that polls gets the lock by its tries.
func (p *proc) Watch(ID, Mode) (<-chan struct{}, func(bool)) { return nil, func(bool) {} }

func (p *proc) Sleep(d time.Duration) { time.Sleep(d) }

// descriptor opens path. A path that says "read-only" can be opened for one mode at a time.
func (p *proc) descriptor(path string, mode Mode) (*descriptor, ID) {
	d := &descriptor{proc: p, ino: p.names[path]}
	if strings.Contains(path, "read-only") {
		d.only = mode
	}
	p.open = append(p.open, d)
	return d, d.ino.id
}

// A descriptor is an open file, and the File of a table.
type descriptor struct {
	*proc
	ino  *inode
	only Mode // if not 0, all that it permits
}

func (d *descriptor) owner() any {
	if d.ownsLocks {
		return d.proc
	}
	return d
}

func (d *descriptor) Permits(mode Mode) bool { return d.only == 0 || d.only == mode }

// free reports whether d could be locked in mode. Pending keeps readers out, not writers.
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
	err = d.call("try", always, func() error {
		d.check("locked")
		if d.ino.locks[d.owner()] != 0 {
			d.fault("a lock is converted")
		}
		if ok = d.free(mode); ok {
			d.lock(mode)
		}
		return nil
	})
	return ok, err
}

func (d *descriptor) lock(mode Mode) {
	d.check("locked")
	d.ino.locks[d.owner()] = mode
	d.ino.locked[d.proc] = d.now
}

// Wait is granted at any time when the lock is free, and withdrawn at any time after ctx is done. As in
// the real kernel, the one may come before the other has had its effect.
func (d *descriptor) Wait(ctx context.Context, mode Mode) error {
	if d.ownsLocks {
		return errors.ErrUnsupported
	}
	if !d.schedWaits {
		return d.waitUnscheduled(ctx, mode)
	}
	withdrawn := false
	stop := context.AfterFunc(ctx, func() {
		_ = d.call("withdraw", always, func() error { withdrawn = true; return nil })
	})
	defer stop()
	ready := func() bool { return d.dead || withdrawn || d.free(mode) }
	err := d.call("wait", ready, func() error {
		if !withdrawn {
			d.lock(mode)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return d.call("return", always, func() error {
		if withdrawn {
			return ctx.Err()
		}
		return nil
	})
}

func (d *descriptor) waitUnscheduled(ctx context.Context, mode Mode) error {
	stop := context.AfterFunc(ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.change()
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
	return d.call("unlock", always, func() error {
		d.check("unlocked")
		d.drop()
		return nil
	})
}

// drop drops what the owner has.
func (d *descriptor) drop() {
	delete(d.ino.locks, d.owner())
	if d.ino.pending == d.owner() {
		d.ino.pending = nil
	}
	d.change()
}

func (d *descriptor) LockPending() error {
	return d.call("lock pending", always, func() error {
		d.check("locked")
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

func (d *descriptor) Pending() (pending bool, err error) {
	err = d.call("pending", always, func() error {
		d.check("asked about")
		pending = d.ino.pending != nil && d.ino.pending != d.owner()
		return nil
	})
	return pending, err
}

func (d *descriptor) Downgrade() error {
	return d.call("downgrade", always, func() error {
		d.check("downgraded")
		if d.ino.locks[d.owner()] != Exclusive {
			d.fault("what is not locked exclusively is downgraded")
		}
		d.ino.locks[d.owner()] = Shared
		if d.ino.pending == d.owner() {
			d.ino.pending = nil
		}
		d.change()
		return nil
	})
}

func (d *descriptor) Close() error {
	return d.call("close", always, func() error {
		d.check("closed")
		if d.ino.locks[d.owner()] != 0 {
			d.fault("process %d closes a file on which it has a lock", d.pid)
		}
		d.drop()
		d.kernel.open = slices.DeleteFunc(d.kernel.open, func(o *descriptor) bool { return o == d })
		return nil
	})
}

func (d *descriptor) check(done string) {
	if !slices.Contains(d.kernel.open, d) {
		d.fault("process %d: a closed descriptor is %s", d.pid, done)
	}
}

// kill ends the process. A moment later its locks are gone.
func (p *proc) kill() (reap func()) {
	p.dead = true
	return func() {
		for _, d := range slices.Clone(p.open) {
			if d.proc == p {
				d.drop()
			}
		}
		p.kernel.open = slices.DeleteFunc(p.kernel.open, func(d *descriptor) bool { return d.proc == p })
	}
}

// tryAcquire acquires the lock without waiting, and reports whether it has.
func tryAcquire(t *Table, r *Request, mode Mode) (Hold, bool, error) {
	h, err := t.Acquire(context.Background(), r, mode, true)
	if err == ErrBusy {
		return Hold{}, false, nil
	}
	return h, err == nil, err
}
