package lockfile_test

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

const unnamed = unix.O_TMPFILE

func init() {
	const (
		userObj, user, groupObj, mask, other = 0x01, 0x02, 0x04, 0x10, 0x20

		nobody = 65534
		none   = 1<<32 - 1
	)
	type entry struct {
		tag, perm uint16
		id        uint32
	}
	withACL := func(entries ...entry) func(dir string) error {
		b := binary.LittleEndian.AppendUint32(nil, 2)
		for _, e := range entries {
			b = binary.LittleEndian.AppendUint16(b, e.tag)
			b = binary.LittleEndian.AppendUint16(b, e.perm)
			b = binary.LittleEndian.AppendUint32(b, e.id)
		}
		return func(dir string) error { return unix.Setxattr(dir, "system.posix_acl_default", b, 0) }
	}
	directories = append(directories,
		directory{"ACL that permits all", withACL(entry{userObj, 7, none}, entry{groupObj, 7, none}, entry{other, 7, none}), true, 0},
		directory{"ACL that keeps others out", withACL(entry{userObj, 7, none}, entry{groupObj, 0, none}, entry{other, 0, none}), true, 0o066},
		directory{"ACL with a mask", withACL(entry{userObj, 7, none}, entry{user, 7, nobody}, entry{groupObj, 5, none},
			entry{mask, 4, none}, entry{other, 0, none}), true, 0o026},
	)
}
