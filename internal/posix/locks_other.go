//go:build unix && !linux

package posix

// LocksOf returns nil: the system does not list locks.
func LocksOf(uint64, uint64, *Lock) ([]Lock, string) { return nil, "" }

// Owners returns none: the system does not tell.
func Owners([]Lock, string, func(string) bool) (map[Lock][]int, bool) { return nil, false }
