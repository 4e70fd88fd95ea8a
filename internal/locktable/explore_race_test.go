//go:build race

package locktable

// Under the race detector a run takes ten times as long, and all runs take gigabytes of memory.
// Races show in fewer runs.
func init() { maxPreemptions = 1 }
