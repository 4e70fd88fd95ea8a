//go:build race

package table

// The race detector takes ten times as long for a run, and gigabytes for all of them. What it looks
// for shows in fewer.
func init() { maxPreemptions = 1 }
