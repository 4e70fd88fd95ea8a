package look

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// mainBase is the least length of the range that a holder locks: docs/protocol.md.
const mainBase = 1 << 62

// lockedPaths returns the paths of all files that a process holds or awaits
// with a lock of this library. A process that awaits it has the file open, too,
// so that the holder's descriptor is enough.
func lockedPaths() (paths []string, err error) {
	infos, err := filepath.Glob("/proc/[0-9]*/fdinfo/[0-9]*")
	if err != nil {
		return nil, err
	}
	for _, info := range infos {
		text, err := os.ReadFile(info)
		if err != nil || !hasMainRange(string(text)) {
			continue // it is not there any more, or of another user
		}
		path, err := os.Readlink(strings.Replace(info, "/fdinfo/", "/fd/", 1))
		if err == nil && filepath.IsAbs(path) && !strings.HasSuffix(path, " (deleted)") {
			paths = append(paths, path)
		}
	}
	return paths, nil
}

// hasMainRange reports whether a lock through a descriptor is one of this
// library: proc_pid_fdinfo(5).
func hasMainRange(fdinfo string) bool {
	for line := range strings.Lines(fdinfo) {
		// lock: 1: OFDLCK ADVISORY WRITE -1 fd:00:1234 0 4611686018427387904
		fields := strings.Fields(line)
		if len(fields) != 9 || fields[0] != "lock:" || fields[7] != "0" {
			continue
		}
		if end, err := strconv.ParseInt(fields[8], 10, 64); err == nil && end >= mainBase-1 {
			return true
		}
	}
	return false
}
