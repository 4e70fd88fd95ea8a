//go:build unix && !linux

package run

// dieWithParent does nothing: these systems do not tell a process that its
// parent has ended.
func (c *child) dieWithParent() error { return nil }
