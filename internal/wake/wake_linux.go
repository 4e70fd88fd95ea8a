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

// idle is for how long the process keeps an inotify instance and watches that nobody needs any
// more. To remove a watch and to close an instance takes the kernel up to 10 ms, and both may well
// be needed again until then.
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
	sweeping bool // a sweep will come
}

func watch(fd int) (events <-chan struct{}, complete bool, stop func()) {
	process.Lock()
	defer process.Unlock()

	if process.file == nil {
		instance, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return nil, false, func() {}
		}
		process.fd = instance
		// Non-blocking, so that reading costs no thread.
		process.file = os.NewFile(uintptr(instance), "inotify")
		process.watchers = make(map[int32][]chan struct{})
		go read(process.file)
	}
	added, err := unix.InotifyAddWatch(process.fd, "/proc/self/fd/"+strconv.Itoa(fd), mask)
	if err != nil {
		sweepLater()
		return nil, false, func() {}
	}
	wd := int32(added)
	c := make(chan struct{}, 1)
	process.watchers[wd] = append(process.watchers[wd], c)
	return c, isLocal(fd), func() { unwatch(wd, c) }
}

func unwatch(wd int32, c chan struct{}) {
	process.Lock()
	defer process.Unlock()
	w := process.watchers[wd]
	if i := slices.Index(w, c); i >= 0 {
		process.watchers[wd] = slices.Delete(w, i, i+1)
	}
	if len(process.watchers[wd]) == 0 {
		sweepLater()
	}
}

// sweepLater makes sweep come. The lock is held.
func sweepLater() {
	if !process.sweeping {
		process.sweeping = true
		time.AfterFunc(idle, sweep)
	}
}

// sweep removes the watches that nobody has any more, and the instance with the last.
func sweep() {
	process.Lock()
	process.sweeping = false
	for wd, w := range process.watchers {
		if len(w) == 0 {
			delete(process.watchers, wd)
			// Fails if the kernel was first, because the file is gone.
			_, _ = unix.InotifyRmWatch(process.fd, uint32(wd))
		}
	}
	f := process.file
	if f == nil || len(process.watchers) > 0 {
		process.Unlock()
		return
	}
	process.file = nil
	process.Unlock()
	_ = f.Close() // ends read
}

// isLocal reports whether nobody but processes of this machine can open the file. What others do
// makes no events here.
func isLocal(fd int) bool {
	var st unix.Statfs_t
	if unix.Fstatfs(fd, &st) != nil {
		return false
	}
	switch int64(st.Type) & 0xffffffff {
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC,
		unix.FUSE_SUPER_MAGIC, unix.V9FS_MAGIC, unix.AFS_SUPER_MAGIC, unix.AFS_FS_MAGIC,
		unix.CEPH_SUPER_MAGIC, unix.CODA_SUPER_MAGIC, unix.OCFS2_SUPER_MAGIC:
		return false
	}
	return true
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
