// Package process tells about other processes.
package process

import "time"

// Existed reports whether the process with the ID pid may have done something at that time: it
// exists, as far as this process can see, and has not begun later. A later process has been
// given the ID anew. A process that has ended and that nobody has waited for yet has no lock
// any more, and does not exist. A zero time is not compared.
func Existed(pid int, at time.Time) bool {
	began, exists := start(pid)
	// The time may be in whole seconds, cut off.
	return exists && (at.IsZero() || began.IsZero() || began.Before(at.Add(time.Second)))
}

// Command returns the name of the program that the process runs, as the system has it, or "" if
// it cannot be read. Its user may have chosen any bytes: see package printable.
func Command(pid int) string { return command(pid) }

// AreListed reports whether the system lists processes under the IDs that they have for this
// one. On Linux, /proc can be the one of another PID namespace.
func AreListed() bool { return areListed() }

// Boot returns when this machine was started, by its clock of today, or zero if that is not
// known.
func Boot() time.Time { return boot() }
