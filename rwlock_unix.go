//go:build unix

package fasteners

import (
	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners/internal/table"
)

// lockType returns the type of record lock for mode. Readers and writers lock the same
// bytes, all that there can be, as Python's fasteners does.
func lockType(mode table.Mode) int16 {
	if mode == table.Shared {
		return unix.F_RDLCK
	}
	return unix.F_WRLCK
}
