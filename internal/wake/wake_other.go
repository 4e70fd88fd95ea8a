//go:build !linux

package wake

func watch(int) (events <-chan struct{}, complete bool, stop func()) {
	return nil, false, func() {}
}
