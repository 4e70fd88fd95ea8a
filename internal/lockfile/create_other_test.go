//go:build unix && !linux

package lockfile_test

const unnamed = 0
