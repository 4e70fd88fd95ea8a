//go:build !unix && !windows

package process

func exists(int) bool { return false }
