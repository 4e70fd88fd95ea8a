package main

import "golang.org/x/sys/windows"

func fileSystemOf(dir string) fileSystem {
	path, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return fileSystem{}
	}
	var root, name, label [windows.MAX_PATH + 1]uint16
	if windows.GetVolumePathName(path, &root[0], uint32(len(root))) != nil {
		return fileSystem{}
	}
	err = windows.GetVolumeInformation(&root[0], &label[0], uint32(len(label)), nil, nil, nil, &name[0], uint32(len(name)))
	if err != nil {
		return fileSystem{}
	}
	fs := fileSystem{
		Type:   windows.UTF16ToString(name[:]),
		Source: windows.UTF16ToString(label[:]),
		Mount:  windows.UTF16ToString(root[:]),
	}
	if windows.GetDriveType(&root[0]) == windows.DRIVE_REMOTE {
		fs.Notes = append(fs.Notes, "whether processes of other machines are excluded depends on the server")
	}
	return fs
}
