package file

import (
	"reflect"
	"testing"
)

func TestFindMount(t *testing.T) {
	const mountinfo = `22 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
23 22 0:21 / /proc rw - proc proc rw
2 22 0:40 / /mnt/a\040b rw,relatime shared:1 master:2 - nfs4 server:/a\040b rw,vers=4.2,local_lock=none
`
	for _, test := range []struct {
		id   string
		want System
	}{
		{"22", System{Type: "ext4", Source: "/dev/vda", Mount: "/", Options: "rw,discard"}},
		{"2", System{Type: "nfs4", Source: "server:/a b", Mount: "/mnt/a b", Options: "rw,vers=4.2,local_lock=none"}},
		{"3", System{}},
		{"", System{}},
	} {
		got, ok := findMount(mountinfo, test.id)
		if !reflect.DeepEqual(got, test.want) || ok != (test.want.Type != "") {
			t.Errorf("mount %q: got %+v, %v", test.id, got, ok)
		}
	}
}

func TestNotes(t *testing.T) {
	for _, test := range []struct {
		kind, options string
		want          int
	}{
		{"ext4", "rw", 0}, {"tmpfs", "", 0}, {"overlay", "rw,lowerdir=/a", 0},
		{"nfs4", "rw,local_lock=none", 1}, {"nfs", "rw,nolock", 1}, {"cifs", "rw,nobrl", 1}, {"fuse.sshfs", "rw", 1},
		{"9p", "rw", 1},
	} {
		if got := notesFor(System{Type: test.kind, Options: test.options}); len(got) != test.want {
			t.Errorf("%s with %q: %q", test.kind, test.options, got)
		}
	}
}
