package table

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"
)

// A kernel has files with locks on them, and processes that use them. It stands in for the
// real one where a test wants every system call to happen when it says so.
type kernel struct {
	// sched, if there is one, decides when a system call happens.
	sched func(*call)

	silent bool // there are no events
	claims bool // without a grace

	mu     sync.Mutex
	names  map[string]*inode
	files  map[ID]*inode
	inodes uint64
	now    int // counts system calls and removals
	open   []*descriptor
	faults []string // of what the table did wrong
}

// An inode is a file. Its locks have owners: descriptors, or processes where the locks are
// of the classic form.
type inode struct {
	id     ID
	locks  map[any]Mode
	gate   any // the owner of it, or nil
	claims map[*proc]*claim

	// When a process has locked it last, and when it was removed.
	locked  map[*proc]int
	removed int
}

// A claim is that of a process, and knows by whom it has been passed.
type claim struct{ by map[*proc]*descriptor }

// A proc is a process, and the System of its table.
type proc struct {
	*kernel
	pid     int
	classic bool // locks belong to the process, and go with any descriptor of the file
	dead    bool
	fail    map[string]error // what the next system call of a name fails with
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
	k := &kernel{names: map[string]*inode{}, files: map[ID]*inode{}}
	for _, p := range paths {
		k.create(p)
	}
	return k
}

func (k *kernel) create(path string) *inode {
	k.inodes++
	ino := &inode{id: ID{1, k.inodes}, locks: map[any]Mode{}, claims: map[*proc]*claim{}, locked: map[*proc]int{}}
	k.names[path] = ino
	k.files[ino.id] = ino
	return ino
}

// unlink takes the name of a file away, and tells those who watch it.
func (k *kernel) unlink(path string) {
	if ino := k.names[path]; ino != nil {
		delete(k.names, path)
		k.now++
		ino.removed = k.now
		k.event(ino, true)
	}
}

func (k *kernel) event(ino *inode, moved bool) {
	for _, d := range k.open {
		if d.ino == ino && d.watch != nil {
			d.moved = d.moved || moved
			select {
			case d.watch <- struct{}{}:
			default:
			}
		}
	}
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
		default:
			err = do()
		}
	}
	if p.sched != nil {
		p.sched(c)
		<-c.done
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c.do()
	return err
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

func (p *proc) Names(path string, id ID) (named bool, err error) {
	err = p.call("names", always, func() error {
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

func (p *proc) Claim(id ID) (drop func()) {
	_ = p.call("claim", always, func() error {
		p.files[id].claims[p] = &claim{map[*proc]*descriptor{}}
		return nil
	})
	return func() {
		_ = p.call("drop claim", always, func() error {
			delete(p.files[id].claims, p)
			return nil
		})
	}
}

func (p *proc) Claimed(id ID) (claimed bool) {
	_ = p.call("claimed", always, func() error {
		for other := range p.files[id].claims {
			claimed = claimed || other != p
		}
		return nil
	})
	return claimed
}

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
	ino   *inode
	only  Mode // if not 0, all that it permits
	watch chan struct{}
	moved bool // an event was that of a name
	woken bool // by an event
	lost  bool // and was not fast enough
}

func (d *descriptor) owner() any {
	if d.classic {
		return d.proc
	}
	return d
}

func (d *descriptor) Permits(mode Mode) bool { return d.only == 0 || d.only == mode }

// free reports whether d could be locked in mode.
func (d *descriptor) free(mode Mode) bool {
	if g := d.ino.gate; g != nil && g != d.owner() {
		return false
	}
	for owner, held := range d.ino.locks {
		if owner != d.owner() && (held == Exclusive || mode == Exclusive) {
			return false
		}
	}
	return true
}

func (d *descriptor) Try(mode Mode) (ok bool, err error) {
	err = d.call("try", always, func() error {
		d.check("locked")
		if d.ino.locks[d.owner()] != 0 {
			d.fault("a lock is converted")
		}
		if ok = d.free(mode); ok {
			d.lock(mode)
		}
		d.lost = d.lost || d.woken && !ok
		return nil
	})
	return ok, err
}

// lock locks the file. Who has a claim is passed once at most by each process: with the descriptor
// that it had, not with one that it opens afterwards. That is if it gets to run within patience,
// as the scheduler sees to.
func (d *descriptor) lock(mode Mode) {
	d.ino.locks[d.owner()] = mode
	d.ino.locked[d.proc] = d.now
	for p, claim := range d.ino.claims {
		switch claim.by[d.proc] {
		case nil:
			claim.by[d.proc] = d
		case d:
		default:
			if d.kernel.claims && p != d.proc && !p.dead {
				d.fault("process %d passes the claim of process %d again", d.pid, p.pid)
			}
		}
	}
}

func (d *descriptor) Wait(mode Mode) (ok bool, err error) {
	if d.sched == nil {
		return false, nil // as if it were a deadlock: the table has to poll
	}
	ready := func() bool { return d.dead || d.free(mode) }
	err = d.call("wait", ready, func() error {
		d.check("locked")
		d.lock(mode)
		return nil
	})
	return err == nil, err
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
	if d.ino.gate == d.owner() {
		d.ino.gate = nil
	}
}

// writerInside reports whether another owner has the file exclusively.
func (d *descriptor) writerInside() bool {
	for owner, held := range d.ino.locks {
		if owner != d.owner() && held == Exclusive {
			return true
		}
	}
	return false
}

func (d *descriptor) Gate(block bool) error {
	free := func() bool {
		return !d.writerInside() && (d.ino.gate == nil || d.ino.gate == d.owner())
	}
	ready := always
	if block {
		ready = func() bool { return d.dead || free() }
	}
	return d.call("gate", ready, func() error {
		d.check("gated")
		if free() {
			d.ino.gate = d.owner()
		}
		return nil
	})
}

func (d *descriptor) Gated() (gated bool, err error) {
	err = d.call("gated", always, func() error {
		d.check("asked about")
		gated = d.ino.gate != nil && d.ino.gate != d.owner()
		return nil
	})
	return gated, err
}

func (d *descriptor) Quiet(Mode) bool { return false }

func (d *descriptor) Downgrade() error {
	return d.call("downgrade", always, func() error {
		d.check("downgraded")
		if d.ino.locks[d.owner()] != Exclusive {
			d.fault("what is not locked exclusively is downgraded")
		}
		d.ino.locks[d.owner()] = Shared
		d.event(d.ino, false)
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
		d.event(d.ino, false)
		return nil
	})
}

func (d *descriptor) check(done string) {
	if !slices.Contains(d.kernel.open, d) {
		d.fault("process %d: a closed descriptor is %s", d.pid, done)
	}
}

func (d *descriptor) Watch() Watch {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.silent {
		return timer{}
	}
	d.watch, d.moved, d.woken, d.lost = make(chan struct{}, 1), false, false, false
	return &events{d, d.watch}
}

type events struct {
	*descriptor
	c chan struct{}
}

func (e *events) Moved() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	moved := e.moved
	e.moved = false
	return moved
}

func (e *events) Complete() bool { return true }

func (e *events) Wait(ctx context.Context, d time.Duration) bool {
	e.mu.Lock()
	if e.kernel.claims && e.lost && e.ino.claims[e.proc] == nil && !e.dead {
		e.fault("process %d has been passed, and makes no claim", e.pid)
	}
	e.mu.Unlock()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-e.c:
		e.mu.Lock()
		defer e.mu.Unlock()
		e.woken = true
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

func (e *events) Stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.watch = nil
}

// kill ends the process. Its files are closed, and who watches them is told so; a moment
// later its locks are gone.
func (p *proc) kill() (reap func()) {
	p.dead = true
	for _, d := range slices.Clone(p.open) {
		if d.proc == p {
			p.event(d.ino, false)
		}
	}
	return func() {
		for _, d := range slices.Clone(p.open) {
			if d.proc == p {
				d.drop()
			}
		}
		p.kernel.open = slices.DeleteFunc(p.kernel.open, func(d *descriptor) bool { return d.proc == p })
		for _, ino := range p.files {
			delete(ino.claims, p)
		}
	}
}
