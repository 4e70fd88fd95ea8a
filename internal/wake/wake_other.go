//go:build !linux

package wake

// Watch watches the file that fd has open, whatever its name.
func Watch(fd int) (events <-chan struct{}, stop func()) {
	return nil, func() {}
}
