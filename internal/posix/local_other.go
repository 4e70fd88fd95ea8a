//go:build unix && !linux && !darwin && !dragonfly && !freebsd

package posix

type fileSystem struct{}

func newFileSystem(int, uint64) fileSystem { return fileSystem{} }

func (fileSystem) isSMB() bool { return false }

// IsLocal returns false: this package does not know how to find out here.
func (d *Descriptor) IsLocal() bool { return false }
