//go:build !unix && !windows

package process

func isThere(int) bool { return false }
