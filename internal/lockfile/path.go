package lockfile

import (
	"os"
	"path/filepath"
)

// cut cuts the last element off a path. It leaves the rest as it is: cleaning it as text would
// change the file that it names, since in link/../lock the directory above is not that of the link
// but that of its target. Only the separators in between go.
//
// The directory of a path of one element is the current one, ".", and that of a root is itself.
func cut(path string) (dir, name string) {
	volume := len(filepath.VolumeName(path))
	begin := len(path)
	for begin > volume && !os.IsPathSeparator(path[begin-1]) {
		begin--
	}
	end := begin
	for end > volume && os.IsPathSeparator(path[end-1]) {
		end--
	}
	if end == volume {
		end = begin // a root keeps its separators
	}
	if end == 0 {
		return ".", path
	}
	return path[:end], path[begin:]
}

// canBeCreated reports whether dir can be missing and be created: not if it is a root, as that of
// a drive or host that does not exist, or the current directory, which may have been removed.
func canBeCreated(dir string) bool {
	above, name := cut(dir)
	return name != "" && dir != "." && above != dir
}
