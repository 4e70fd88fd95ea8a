package locktable

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The tests of this package run on a simulated kernel. This comment explains how to read them.
//
// What is simulated: a kernel has inodes with locks on them, paths that name inodes, and
// processes. A proc is one process. It implements System, so each process of a test has a Table
// of its own:
//
//	k := newKernel(path)                       // a kernel with one file
//	table := New(&proc{kernel: k}, 0)          // the table of process 0
//	other := New(&proc{kernel: k, pid: 1}, 0)  // the table of process 1
//
// A descriptor, in kernel_file_test.go, implements File. Descriptors own locks, as open file
// descriptions do on Linux; with proc.ownsLocks the process owns them, and closing any
// descriptor of the file drops them. What a Table must never do, such as closing a locked file,
// is recorded in kernel.faults.
//
// How calls are scheduled: each method that stands for a system call makes a call (proc.call),
// which has a name, such as "try" for TryLock. By default a call happens immediately. With
// kernel.intercept it happens when the interceptor wants it to: intercept receives the call,
// and the goroutine that makes the call is blocked until another one, or intercept itself,
// performs it. A wait in the kernel is not such a call; it blocks until the lock is free or the
// context is done. With interceptWaits, which only the explorer sets, a wait consists of calls,
// too: see descriptor.Wait.
//
// How a test lets a call happen: holdBack intercepts the calls of one name until the test calls
// resume.
//
//	resume := k.holdBack("try")                    // from now on, TryLock blocks
//	leader := goAcquire(ctx, table, r, Exclusive)  // leads, and is blocked in TryLock
//	waiter := goAcquire(ctx, table, r, Exclusive)  // queues behind the leader
//	resume()                                       // the leader's TryLock returns
//	h := leader.mustHold(t)
//
// Such a test runs in a bubble of testing/synctest. There, synctest.Wait returns when every
// other goroutine of the test is blocked; goAcquire calls it, and so returns when its goroutine
// has the lock or waits for something. Time passes only when all goroutines are blocked, so
// time.Sleep lets timers fire, and takes no real time.
//
// The explorer intercepts all calls and performs them one at a time, in many orders: see
// explore_test.go.

// A kernel has files with locks on them, and processes that use them.
type kernel struct {
	// intercept, if not nil, receives each call before it happens, and decides when it does.
	intercept      func(*call)
	interceptWaits bool // waits in the kernel consist of calls, too

	// mu protects all that follows, and the inodes, processes and descriptors. A function that
	// is given to proc.call runs under mu.
	mu        sync.Mutex
	changed   chan struct{} // closed when a lock is dropped or a context is done
	paths     map[string]*inode
	inodes    map[ID]*inode
	lastInode uint64
	now       int // the number of calls and removals so far
	open      []*descriptor
	faults    []string // what a table did wrong
}

// An inode is a file. Its locks have owners: descriptors, or the processes that own their locks.
type inode struct {
	id        ID
	locks     map[any]Mode
	pending   any           // the owner of the pending lock, or nil
	lockedAt  map[*proc]int // when each process last locked the file
	removedAt int           // 0 if its path was never removed
}

// A proc is a process, and the System of its table.
type proc struct {
	*kernel
	pid        int
	ownsLocks  bool             // closing a descriptor drops them all, and the kernel offers no wait
	dead       bool             // its calls have no effect
	fail       map[string]error // by name of a call: the error of the next one
	failAlways map[string]error // by name of a call: the error of each
}

// A call is a system call that has not happened yet.
type call struct {
	proc  *proc
	name  string
	ready func() bool // reports whether it would not block
	do    func()
	done  chan struct{} // closed when it has happened
}

func newKernel(paths ...string) *kernel {
	k := &kernel{paths: map[string]*inode{}, inodes: map[ID]*inode{}, changed: make(chan struct{})}
	for _, p := range paths {
		k.create(p)
	}
	return k
}

// create makes path name a new file.
func (k *kernel) create(path string) *inode {
	k.lastInode++
	ino := &inode{id: ID{1, k.lastInode}, locks: map[any]Mode{}, lockedAt: map[*proc]int{}}
	k.paths[path] = ino
	k.inodes[ino.id] = ino
	return ino
}

// unlink removes path. The file goes on to exist for those that have it open.
func (k *kernel) unlink(path string) {
	if ino := k.paths[path]; ino != nil {
		delete(k.paths, path)
		k.now++
		ino.removedAt = k.now
	}
}

// remove is unlink for a caller that does not hold mu.
func (k *kernel) remove(path string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.unlink(path)
}

// replace makes path name a new file, for a caller that does not hold mu.
func (k *kernel) replace(path string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.unlink(path)
	k.create(path)
}

// wakeWaiters lets all that wait in the kernel look again at what they wait for.
func (k *kernel) wakeWaiters() {
	close(k.changed)
	k.changed = make(chan struct{})
}

// fault records that a table has done something wrong.
func (k *kernel) fault(format string, args ...any) {
	k.faults = append(k.faults, fmt.Sprintf(format, args...))
}

var errDead = errors.New("process is dead")

// call makes a system call, and returns when it has happened.
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
	intercept := p.intercept
	p.mu.Unlock()
	if intercept == nil {
		c.perform()
	} else {
		intercept(c)
		<-c.done
	}
	return err
}

// perform makes the call happen, and lets the goroutine that has made it go on.
func (c *call) perform() {
	c.proc.mu.Lock()
	defer c.proc.mu.Unlock()
	c.do()
	close(c.done)
}

func always() bool { return true }

// setIntercept sets intercept while calls may be under way.
func (k *kernel) setIntercept(intercept func(*call)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.intercept = intercept
}

// holdBack keeps the calls of one name from happening until resume is called. All others happen
// immediately.
func (k *kernel) holdBack(name string) (resume func()) {
	resumed := make(chan struct{})
	k.setIntercept(func(c *call) {
		if c.name == name {
			<-resumed
		}
		c.perform()
	})
	return func() { close(resumed) }
}

// count counts in n the calls of one name from now on, or of any name if that is empty.
func (k *kernel) count(n *atomic.Int64, name string) {
	k.setIntercept(func(c *call) {
		if name == "" || c.name == name {
			n.Add(1)
		}
		c.perform()
	})
}

// kill kills the process. Its locks last until reap is called, as they last for a moment in a real
// kernel.
func (p *proc) kill() (reap func()) {
	p.dead = true
	return func() {
		for _, d := range p.descriptors() {
			d.dropLocks()
			p.forget(d)
		}
	}
}

func (p *proc) Identify(path string) (id ID, err error) {
	err = p.call("identify", always, func() error {
		ino := p.paths[path]
		if ino == nil {
			return fs.ErrNotExist
		}
		id = ino.id
		return nil
	})
	return id, err
}

func (p *proc) SameFile(path string, id ID) (same bool, err error) {
	err = p.call("same file", always, func() error {
		same = p.paths[path] != nil && p.paths[path].id == id
		return nil
	})
	return same, err
}

func (p *proc) Open(path string, mode Mode) (f File, id ID, err error) {
	err = p.call("open", always, func() error {
		if p.paths[path] == nil {
			return fs.ErrNotExist
		}
		f, id = p.descriptor(path, mode)
		return nil
	})
	return f, id, err
}

func (p *proc) Create(path string, mode Mode, perm fs.FileMode) (f File, id ID, err error) {
	err = p.call("create", always, func() error {
		if p.paths[path] == nil {
			p.create(path)
		}
		f, id = p.descriptor(path, mode)
		return nil
	})
	return f, id, err
}

// Watch reports no releases, so a process that polls has to acquire the lock by its tries.
func (p *proc) Watch(ID, Mode) (<-chan struct{}, func(bool)) { return nil, func(bool) {} }

func (p *proc) Sleep(d time.Duration) { time.Sleep(d) }

// descriptor opens path. A descriptor of a path that contains "read-only" permits only the mode
// for which it was opened.
func (p *proc) descriptor(path string, mode Mode) (*descriptor, ID) {
	d := &descriptor{proc: p, ino: p.paths[path]}
	if strings.Contains(path, "read-only") {
		d.only = mode
	}
	p.open = append(p.open, d)
	return d, d.ino.id
}

var _ System = (*proc)(nil)

// failNext makes the next call of that name fail.
func (p *proc) failNext(name string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail[name] = err
}

// failures returns how many of those calls have not happened.
func (p *proc) failures() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.fail)
}
