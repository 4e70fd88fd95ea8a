package file

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// systemOf looks the mount up by its number, as two mounts can have the same path.
func systemOf(dir string) System {
	s, ok := mountOf(dir)
	if !ok {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) != nil {
			return System{}
		}
		s.Type = magicName(uint32(st.Type))
	}
	s.Notes = notesFor(s)
	return s
}

// mountOf reads proc_pid_fdinfo(5) and proc_pid_mountinfo(5).
func mountOf(dir string) (System, bool) {
	f, err := os.Open(dir)
	if err != nil {
		return System{}, false
	}
	defer f.Close()
	about, _ := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", f.Fd()))
	_, id, _ := strings.Cut(string(about), "\nmnt_id:")
	id, _, _ = strings.Cut(id, "\n")
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	return findMount(string(mounts), strings.TrimSpace(id))
}

// findMount returns the mount with that number.
func findMount(mountinfo, id string) (System, bool) {
	for line := range strings.Lines(mountinfo) {
		rest, ok := strings.CutPrefix(line, id+" ")
		if !ok || id == "" {
			continue
		}
		before, after, _ := strings.Cut(rest, " - ")
		mount, about := strings.Fields(before), strings.Fields(after)
		if len(mount) < 5 || len(about) < 3 {
			return System{}, false
		}
		unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
		return System{
			Type:    about[0],
			Source:  unescape.Replace(about[1]),
			Mount:   unescape.Replace(mount[3]),
			Options: unescape.Replace(about[2]),
		}, true
	}
	return System{}, false
}

// magicName names the number that statfs(2) returns.
func magicName(magic uint32) string {
	switch magic {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlay"
	case unix.NFS_SUPER_MAGIC:
		return "nfs"
	case unix.SMB_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC:
		return "cifs"
	case unix.FUSE_SUPER_MAGIC:
		return "fuse"
	case unix.V9FS_MAGIC:
		return "9p"
	}
	return fmt.Sprintf("%#x", magic)
}

// notesFor says what type and options mean for locks, where that cannot be
// tried on one machine.
func notesFor(s System) []string {
	var notes []string
	has := func(option string) bool {
		return strings.Contains(","+s.Options+",", ","+option+",")
	}
	const alone = "locks exclude only processes of this machine"
	switch kind, _, _ := strings.Cut(s.Type, "."); {
	case strings.HasPrefix(kind, "nfs") &&
		(has("nolock") || has("local_lock=all") || has("local_lock=posix")):
		notes = append(notes, alone+": see the options (nfs(5), local_lock)")
	case kind == "cifs" && has("nobrl"):
		notes = append(notes, alone+": see the options (mount.cifs(8), nobrl)")
	case strings.HasPrefix(kind, "nfs"), kind == "cifs", kind == "smb3":
		notes = append(notes, dependsOnServer)
	case kind == "9p", kind == "virtiofs", kind == "drvfs", strings.HasPrefix(kind, "fuse"):
		notes = append(notes,
			"whether processes of other machines, or of the host, are excluded depends on the server")
	}
	return notes
}
