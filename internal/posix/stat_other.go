//go:build unix && (!linux || android)

package posix

// Stat returns the file that path names. Its error is an errno.
func Stat(path string) (FileInfo, error) { return stat(path) }
