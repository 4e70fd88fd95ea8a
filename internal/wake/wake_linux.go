package wake

import (
	"encoding/binary"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// idle is for how long the process keeps its inotify instance when nobody
// watches any more. To make and close one takes the kernel up to 10 ms, for
// which it can well be needed again.
const idle = 20 * time.Millisecond

// Closing is what releases a lock, or comes with it. The link count of a file
// that is removed or replaced changes, which is IN_ATTRIB.
const mask = unix.IN_CLOSE_WRITE | unix.IN_CLOSE_NOWRITE |
	unix.IN_ATTRIB | unix.IN_MOVE_SELF | unix.IN_DELETE_SELF

// Instances are scarce, 128 per user by default, so a process has one.
var process struct {
	sync.Mutex
	file     *os.File // nil when there is no instance
	fd       int      // of file
	watchers map[int32][]chan struct{}
	expiry   *time.Timer // closes file, runs while there are no watchers
}

// Watch watches the file that fd has open, whatever its name.
func Watch(fd int) (events <-chan struct{}, stop func()) {
	process.Lock()
	defer process.Unlock()

	if process.file == nil {
		instance, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return nil, func() {}
		}
		process.fd = instance
		// Non-blocking, so that reading costs no thread.
		process.file = os.NewFile(uintptr(instance), "inotify")
		process.watchers = make(map[int32][]chan struct{})
		go read(process.file)
	}
	wd, err := unix.InotifyAddWatch(process.fd, "/proc/self/fd/"+strconv.Itoa(fd), mask)
	if err != nil {
		expireLater()
		return nil, func() {}
	}

	if process.expiry != nil {
		process.expiry.Stop()
	}
	c := make(chan struct{}, 1)
	process.watchers[int32(wd)] = append(process.watchers[int32(wd)], c)
	return c, func() { unwatch(int32(wd), c) }
}

func unwatch(wd int32, c chan struct{}) {
	process.Lock()
	defer process.Unlock()
	if i := slices.Index(process.watchers[wd], c); i >= 0 {
		process.watchers[wd] = slices.Delete(process.watchers[wd], i, i+1)
	}
	if len(process.watchers[wd]) == 0 {
		delete(process.watchers, wd)
		// Fails if the kernel was first, because the file system is gone.
		_, _ = unix.InotifyRmWatch(process.fd, uint32(wd))
	}
	expireLater()
}

// expireLater ends the instance soon if nobody uses it. The lock is held.
func expireLater() {
	if len(process.watchers) > 0 {
		return
	}
	if process.expiry == nil {
		process.expiry = time.AfterFunc(idle, expire)
	} else {
		process.expiry.Reset(idle)
	}
}

func expire() {
	process.Lock()
	if len(process.watchers) > 0 || process.file == nil {
		process.Unlock()
		return // somebody came, or two timers have raced
	}
	f := process.file
	process.file = nil
	process.Unlock()
	_ = f.Close() // ends read
}

// read passes the events of one instance on until it is closed.
func read(f *os.File) {
	var buf [4096]byte // room for many; no event here has a name
	for {
		n, err := f.Read(buf[:])
		if err != nil {
			return
		}
		process.Lock()
		if process.file == f {
			for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
				wd := int32(binary.NativeEndian.Uint32(b))
				length := binary.NativeEndian.Uint32(b[12:])
				b = b[unix.SizeofInotifyEvent+int(length):]
				if wd >= 0 {
					notify(process.watchers[wd])
					continue
				}
				for _, w := range process.watchers { // IN_Q_OVERFLOW: some are lost
					notify(w)
				}
			}
		}
		process.Unlock()
	}
}

func notify(watchers []chan struct{}) {
	for _, c := range watchers {
		select {
		case c <- struct{}{}:
		default: // it has one to read
		}
	}
}
