//go:build darwin || freebsd

package file

import "golang.org/x/sys/unix"

func systemOf(dir string) System {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return System{}
	}
	s := System{
		Type:   unix.ByteSliceToString(st.Fstypename[:]),
		Source: unix.ByteSliceToString(st.Mntfromname[:]),
		Mount:  unix.ByteSliceToString(st.Mntonname[:]),
	}
	if st.Flags&unix.MNT_LOCAL == 0 {
		s.Notes = append(s.Notes, dependsOnServer)
	}
	return s
}
