//go:build !linux && !darwin && !windows

package process

func command(int) string { return "" }
