package file

import "golang.org/x/sys/windows"

func systemOf(dir string) System {
	path, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return System{}
	}
	var root, name, label [windows.MAX_PATH + 1]uint16
	if windows.GetVolumePathName(path, &root[0], uint32(len(root))) != nil {
		return System{}
	}
	err = windows.GetVolumeInformation(&root[0], &label[0], uint32(len(label)), nil, nil, nil,
		&name[0], uint32(len(name)))
	if err != nil {
		return System{}
	}
	s := System{
		Type:   windows.UTF16ToString(name[:]),
		Source: windows.UTF16ToString(label[:]),
		Mount:  windows.UTF16ToString(root[:]),
	}
	if windows.GetDriveType(&root[0]) == windows.DRIVE_REMOTE {
		s.Notes = append(s.Notes, dependsOnServer)
	}
	return s
}
