//go:build !linux

package look

import "errors"

func lockedPaths() ([]string, error) {
	return nil, errors.New("this system does not list locks: name a directory")
}
