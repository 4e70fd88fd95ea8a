//go:build darwin || freebsd

package main

import "golang.org/x/sys/unix"

func fileSystemOf(dir string) fileSystem {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return fileSystem{}
	}
	fs := fileSystem{
		Type:   unix.ByteSliceToString(st.Fstypename[:]),
		Source: unix.ByteSliceToString(st.Mntfromname[:]),
		Mount:  unix.ByteSliceToString(st.Mntonname[:]),
	}
	if st.Flags&unix.MNT_LOCAL == 0 {
		fs.Notes = append(fs.Notes, "whether processes of other machines are excluded depends on the server")
	}
	return fs
}
