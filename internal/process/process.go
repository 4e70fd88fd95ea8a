// Package process tells about other processes.
package process

// Exists reports whether there is a process with the ID pid, as far as this process can see.
func Exists(pid int) bool { return exists(pid) }

// Command returns the name of the program that the process runs, or "" if it cannot be read.
func Command(pid int) string { return command(pid) }
