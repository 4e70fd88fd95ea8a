//go:build unix

package tests

import (
	"os"
	"path/filepath"
	"testing"
)

// pathsWithoutDirectory returns paths in directories that cannot be created.
func pathsWithoutDirectory(t *testing.T) []string {
	dir := t.TempDir()
	removed := filepath.Join(dir, "removed")
	must(t, os.Mkdir(removed, 0o777))
	link := filepath.Join(dir, "link")
	must(t, os.Symlink(filepath.Join(dir, "none", "lock"), link))
	t.Chdir(removed)
	must(t, os.Remove(removed))
	return []string{"lock", "a/lock", "a/b/lock", link}
}
