//go:build !linux

package main

import "errors"

func lockedPaths() ([]string, error) {
	return nil, errors.New("this system does not list locks: name a directory")
}

// arguments knows none here.
func arguments(int) []string { return nil }
