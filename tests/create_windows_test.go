package tests

import (
	"testing"

	"golang.org/x/sys/windows"
)

// pathsWithoutDirectory returns paths in directories that cannot be created.
func pathsWithoutDirectory(t *testing.T) []string {
	drives, err := windows.GetLogicalDrives()
	must(t, err)
	letter := 'A'
	for ; drives&1 != 0; drives >>= 1 {
		letter++
	}
	none := string(letter) + ":"
	return []string{none + `\lock`, none + `\a\lock`, none + `\a\b\lock`, none + "lock", none + `a\b\lock`, `\\?\` + none + `\a\lock`}
}
