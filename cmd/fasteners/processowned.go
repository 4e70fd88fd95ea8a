//go:build processowned

package main

import "github.com/go-fasteners/fasteners/internal/posix"

// With the tag processowned, which is for tests, Linux uses the locks of other
// systems.
func init() { posix.ForceProcessOwned.Store(true) }
