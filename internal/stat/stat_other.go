//go:build unix && (!linux || android)

package stat

// Path returns the file that path names. Its error is an errno.
func Path(path string) (File, error) { return byStat(path) }
