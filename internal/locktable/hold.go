package locktable

import "os"

// A Hold is one grant of a lock. The holder calls Release once.
type Hold struct{ entry *entry }

// Release releases the lock. It reports whether path still named the locked file.
func (h Hold) Release(path string) (same bool, err error) {
	// This comes before the release: anybody may replace the file of a free lock. If the system
	// cannot tell, that is not reported, and the lock is released all the same.
	same, lookErr := h.entry.table.system.SameFile(path, h.entry.id)
	if !same {
		return lookErr != nil, h.entry.release("")
	}
	return true, h.entry.release(path)
}

// Downgrade converts an exclusive hold to a shared one. The readers at the head of the queue
// acquire the lock, too.
func (h Hold) Downgrade() error { return h.entry.downgrade() }

// ID returns the identity of the locked file.
func (h Hold) ID() ID { return h.entry.id }

// SameFile reports whether path names the locked file, or the system cannot tell.
func (h Hold) SameFile(path string) bool {
	same, err := h.entry.table.system.SameFile(path, h.entry.id)
	return same || err != nil
}

// Duplicate returns a descriptor for another process to hold the lock as well: see [File].
func (h Hold) Duplicate() (*os.File, error) { return h.entry.file.Duplicate() }
