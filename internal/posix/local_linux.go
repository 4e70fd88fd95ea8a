package posix

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// localTypes are the file systems that are known to leave locks to the kernel of this machine.
// Another one may ask a server or a process, which can take any time to answer.
var localTypes = map[string]bool{
	"bcachefs": true, "btrfs": true, "exfat": true, "ext2": true, "ext3": true, "ext4": true,
	"f2fs": true, "msdos": true, "overlay": true, "ramfs": true, "tmpfs": true, "vfat": true,
	"xfs": true, "zfs": true,
}

// A fileSystem tells file systems apart. A device number alone does not: it can be used again.
type fileSystem struct {
	dev   uint64
	magic uint32 // statfs(2)
}

func newFileSystem(fd int, dev uint64) fileSystem {
	var st unix.Statfs_t
	if unix.Fstatfs(fd, &st) != nil {
		st.Type = 0 // no file system has this type
	}
	return fileSystem{dev, uint32(st.Type)}
}

// isSMB covers all SMB clients that Linux has had.
func (f fileSystem) isSMB() bool {
	return f.magic == unix.SMB_SUPER_MAGIC || f.magic == unix.CIFS_SUPER_MAGIC || f.magic == unix.SMB2_SUPER_MAGIC
}

var isLocalOn sync.Map // of fileSystem and bool

// IsLocal reports whether the locks of the file are known to be kept by the kernel of this machine.
func (d *Descriptor) IsLocal() bool {
	local, ok := isLocalOn.Load(d.fileSystem)
	if !ok {
		// The magic number does not tell what a file system is: 9p reports the one of the server's.
		name := fileSystemType(d.FD)
		local = localTypes[name]
		if name != "" { // otherwise the next call may find out, with more descriptors to read /proc
			isLocalOn.Store(d.fileSystem, local)
		}
	}
	return local.(bool)
}

// fileSystemType returns the type of the file system that fd is on, by the mount that
// proc_pid_fdinfo(5) names, or "" if it cannot be read.
func fileSystemType(fd int) string {
	info, _ := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	table, _ := os.ReadFile("/proc/self/mountinfo")
	_, id, _ := strings.Cut(string(info), "\nmnt_id:")
	id, _, _ = strings.Cut(id, "\n")
	return mountType(string(table), strings.TrimSpace(id))
}

// mountType returns the file system type of a mount in the table of proc_pid_mountinfo(5).
func mountType(table, id string) string {
	for line := range strings.Lines(table) {
		if rest, ok := strings.CutPrefix(line, id+" "); ok && id != "" {
			_, rest, _ = strings.Cut(rest, " - ")
			name, _, _ := strings.Cut(rest, " ")
			return name
		}
	}
	return ""
}
