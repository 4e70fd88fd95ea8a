package file

import (
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// RemoveAfterRelease is true, since a file that is open here cannot be removed:
// neither the holder can do that, nor any process while another one holds the
// lock.
const RemoveAfterRelease = true

// Identify requests no access to the file that the path names, so it keeps no
// process from opening it.
func Identify(path string) (ID, error) {
	name, err := windows.UTF16PtrFromString(path)
	var h windows.Handle
	if err == nil {
		const share = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE
		h, err = windows.CreateFile(name, 0, share, nil, windows.OPEN_EXISTING,
			windows.FILE_FLAG_BACKUP_SEMANTICS, 0)
	}
	var info windows.ByHandleFileInformation
	if err == nil {
		err = windows.GetFileInformationByHandle(h, &info)
		_ = windows.CloseHandle(h)
	}
	if err != nil {
		return ID{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	index := uint64(info.FileIndexHigh)<<32 | uint64(info.FileIndexLow)
	return ID{uint64(info.VolumeSerialNumber), index}, nil
}

// Inode returns 0: no lock has a file here.
func Inode(*os.File) uint64 { return 0 }

// Links does not matter: no name of a file that a process has open can be removed.
func Links(fs.FileInfo) uint64 { return 1 }
