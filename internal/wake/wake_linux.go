package wake

import (
	"context"
	"encoding/binary"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// For how long the process keeps an inotify instance and watches that nobody needs any more. To
// remove a watch and to close an instance takes the kernel up to 10 ms, and both may well be needed
// again soon: where processes take turns, in each of these. late is for how long where there was no
// time to set a timer. again is for how long one who has found no instance does without: where more
// processes wait than there are instances, to let each have one costs more than it saves. They are
// variables for tests.
var idle, late, again = 20 * time.Millisecond, 10 * time.Second, time.Second

// Closing is what releases a lock, or comes with it. The link count of a file
// that is removed or replaced changes, which is IN_ATTRIB.
const (
	closed = unix.IN_CLOSE_WRITE | unix.IN_CLOSE_NOWRITE
	moved  = unix.IN_ATTRIB | unix.IN_MOVE_SELF | unix.IN_DELETE_SELF
)

// Instances are scarce, 128 per user by default, so a process has one. Those who wait read it, one
// at a time: a goroutine that does nothing else would be woken first, and wake them then, which
// costs half as much again as the rest of a hand-off.
var process struct {
	sync.Mutex
	instance *os.File // nil when there is none
	conn     syscall.RawConn
	fd       int             // of both
	files    map[int32]*file // by watch descriptor
	reading  bool            // somebody reads, or has been told to
	buf      [4096]byte      // of the one who reads; no event here has a name
	sweeper  *time.Timer
	sweepAt  time.Time // when it comes; zero if it does not
}

// A file is one that the kernel watches for us.
type file struct {
	watches []*Watch
	left    time.Time // by the last of these
}

// A Watch is one waiter's interest in one file.
type Watch struct {
	fd       int
	wd       int32
	event    chan struct{} // nil if there are none
	read     chan struct{} // it is this one's turn to read
	waiting  bool          // for that; process protects it
	moved    bool          // an event was not just that somebody closed the file; the same
	woken    bool          // the last Wait has seen an event
	complete bool
	retry    time.Time // when to look for an instance again; zero if that is of no use
}

// New watches the file that fd has open, whatever its name. It has to stay open until Stop.
func New(fd int) *Watch {
	w := &Watch{fd: fd}
	w.begin()
	return w
}

// begin makes w see events, if there are any to be had at this time.
func (w *Watch) begin() {
	process.Lock()
	defer process.Unlock()

	if process.instance == nil {
		// Non-blocking, so that reading costs no thread.
		instance, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			w.retry = time.Now().Add(again) // others of the user may have all
			return
		}
		f := os.NewFile(uintptr(instance), "inotify")
		conn, err := f.SyscallConn()
		if err != nil {
			_ = f.Close()
			return
		}
		process.instance, process.conn, process.fd = f, conn, instance
		process.files = make(map[int32]*file)
		sweepAfter(late)
	}
	wd, err := unix.InotifyAddWatch(process.fd, "/proc/self/fd/"+strconv.Itoa(w.fd), closed|moved)
	if err != nil {
		sweepAfter(idle)
		w.retry = time.Time{} // without /proc there never are any
		return
	}
	w.wd = int32(wd)
	w.event = make(chan struct{}, 1)
	w.read = make(chan struct{}, 1)
	w.complete = isLocal(w.fd)
	f := process.files[w.wd]
	if f == nil {
		f = new(file)
		process.files[w.wd] = f
	}
	f.watches = append(f.watches, w)
}

// Stop ends the watch. Nobody may be in Wait.
func (w *Watch) Stop() {
	if w.event == nil {
		return
	}
	process.Lock()
	defer process.Unlock()
	if f := process.files[w.wd]; f != nil {
		if i := slices.Index(f.watches, w); i >= 0 {
			f.watches, f.left = slices.Delete(f.watches, i, i+1), time.Now()
		}
	}
	// To set a timer to a time before all others makes the runtime wake another thread for it.
	// One who was woken most likely has the lock now, and no time for that.
	if w.woken {
		kept.Store(true)
	} else {
		sweepAfter(idle)
	}
}

// kept says that a watch which was woken has ended.
var kept atomic.Bool

// Tidy is for one who has released the lock, and has the time now.
func Tidy() {
	if kept.CompareAndSwap(true, false) {
		process.Lock()
		defer process.Unlock()
		sweepAfter(idle)
	}
}

// Wait returns true after an event, also one since the last call, and false after d or when ctx is
// done, or earlier where there were no events to be had.
func (w *Watch) Wait(ctx context.Context, d time.Duration) bool {
	if w.event == nil {
		look := !w.retry.IsZero()
		if look {
			d = min(d, time.Until(w.retry))
		}
		_ = wait(ctx, d, nil)
		// What happens until there are events, the caller finds out: he tries now.
		if look && time.Until(w.retry) <= 0 && ctx.Err() == nil {
			w.begin()
		}
		return false
	}
	deadline := time.Now().Add(d)
	process.Lock()
	read := !process.reading
	process.reading, w.waiting = true, !read
	process.Unlock()
	if read {
		w.woken = w.readUntil(ctx, deadline)
	} else {
		w.woken = w.waitUntil(ctx, deadline)
	}
	return w.woken
}

// waitUntil waits for something for w, while another one reads.
func (w *Watch) waitUntil(ctx context.Context, deadline time.Time) bool {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	event, read := false, false
	select {
	case <-w.event:
		event = true
	case <-w.read:
		read = true
	case <-timer.C:
	case <-ctx.Done():
	}
	if read && !event {
		return w.readUntil(ctx, deadline)
	}
	process.Lock()
	defer process.Unlock()
	w.waiting = false
	select {
	case <-w.read: // just now: it is not for us any more
		passOn()
	default:
	}
	return event
}

// readUntil reads for everybody until there is something for w.
func (w *Watch) readUntil(ctx context.Context, deadline time.Time) bool {
	f, conn := process.instance, process.conn // they stay, as w does
	_ = f.SetReadDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	n, broken := 0, false
	read := func(fd uintptr) bool {
		// Not by Syscall, which wakes the runtime's monitor if the process was idle, and that
		// looks around every 20 µs from then on: the most of what it costs to wake up for nothing.
		r, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&process.buf)), unsafe.Sizeof(process.buf))
		switch {
		case errno == unix.EAGAIN:
			return false
		case errno == 0 && r > 0:
			n = int(r)
		case errno != unix.EINTR:
			broken = true
		}
		return true
	}
	for {
		event := false
		select {
		case <-w.event:
			event = true
		default:
		}
		var err error
		n = 0
		if !event && ctx.Err() == nil {
			err = conn.Read(read) // sleeps until read returns true, or the deadline
		}
		process.Lock()
		deliver(process.buf[:n])
		select {
		case <-w.event:
			event = true
		default:
		}
		if err != nil && time.Until(deadline) > 0 {
			// One who read before has set it, late. If it was set for this one, ctx is done.
			err = f.SetReadDeadline(deadline)
		}
		if event || err != nil || broken || ctx.Err() != nil {
			passOn()
			process.Unlock()
			if broken && !event { // somebody has closed a descriptor that is not his
				return wait(ctx, time.Until(deadline), w.event)
			}
			return event
		}
		process.Unlock()
	}
}

// passOn lets another one read. The lock is held.
func passOn() {
	for _, f := range process.files {
		for _, w := range f.watches {
			if w.waiting {
				w.waiting = false
				w.read <- struct{}{}
				return
			}
		}
	}
	process.reading = false
}

// deliver gives events to those whom they concern. The lock is held.
func deliver(b []byte) {
	for len(b) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(b))
		moved := binary.NativeEndian.Uint32(b[4:])&^closed != 0
		length := binary.NativeEndian.Uint32(b[12:])
		b = b[unix.SizeofInotifyEvent+int(length):]
		if wd >= 0 {
			if f := process.files[wd]; f != nil {
				f.notify(moved)
			}
			continue
		}
		for _, f := range process.files { // IN_Q_OVERFLOW: some are lost
			f.notify(true)
		}
	}
}

func (f *file) notify(moved bool) {
	for _, w := range f.watches {
		w.moved = w.moved || moved
		select {
		case w.event <- struct{}{}:
		default: // it has one to see
		}
	}
}

// sweepAfter makes sweep come, but not later than it would: those who come all the time would put
// it off for ever. The lock is held.
func sweepAfter(d time.Duration) {
	at := time.Now().Add(d)
	if !process.sweepAt.IsZero() && process.sweepAt.Before(at) {
		return
	}
	process.sweepAt = at
	if process.sweeper == nil {
		process.sweeper = time.AfterFunc(d, sweep)
	} else {
		process.sweeper.Reset(d)
	}
}

// sweep removes the watches that nobody has needed for a while, and the instance with the last.
func sweep() {
	process.Lock()
	process.sweepAt = time.Time{}
	next := late
	for wd, f := range process.files {
		if len(f.watches) > 0 {
			continue
		}
		if left := idle - time.Since(f.left); left > 0 {
			next = min(next, left)
			continue
		}
		delete(process.files, wd)
		// Fails if the kernel was first, because the file is gone.
		_, _ = unix.InotifyRmWatch(process.fd, uint32(wd))
	}
	if len(process.files) > 0 {
		sweepAfter(next)
		process.Unlock()
		return
	}
	instance := process.instance
	process.instance = nil
	process.Unlock()
	_ = instance.Close() // nil if a sweep was due twice
}

// Sleep is time.Sleep, but exact, and takes a thread. The runtime waits for timers by epoll_wait(2),
// in whole milliseconds: see BenchmarkSleep.
func Sleep(d time.Duration) {
	left := unix.NsecToTimespec(d.Nanoseconds())
	err := unix.Nanosleep(&left, &left)
	for err == unix.EINTR {
		err = unix.Nanosleep(&left, &left)
	}
	if err != nil {
		time.Sleep(d)
	}
}

// Moved reports whether an event since the last call may mean that the file has another name now, or
// none.
func (w *Watch) Moved() bool {
	process.Lock()
	defer process.Unlock()
	moved := w.moved
	w.moved = false
	return moved
}

// Complete reports whether all who lock and close the file make an event, as processes of this
// machine do.
func (w *Watch) Complete() bool { return w.complete }

// isLocal reports whether the file is on a file system that is known to have its locks in this
// machine. One that is not known may be that of a cluster, or of a process.
func isLocal(fd int) bool {
	const zfs = 0x2fc12fc1
	var st unix.Statfs_t
	if unix.Fstatfs(fd, &st) != nil {
		return false
	}
	switch int64(st.Type) & 0xffffffff {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC,
		unix.BCACHEFS_SUPER_MAGIC, zfs, unix.TMPFS_MAGIC, unix.RAMFS_MAGIC,
		unix.OVERLAYFS_SUPER_MAGIC, unix.EXFAT_SUPER_MAGIC, unix.MSDOS_SUPER_MAGIC:
		return true
	}
	return false
}
