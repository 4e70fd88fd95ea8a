package worker

import "unsafe"

// A Layout tells a program that is not in Go where to write on the board.
type Layout struct {
	Phase    uintptr `json:"phase"`
	Reads    uintptr `json:"reads"`
	Writes   uintptr `json:"writes"`
	Since    uintptr `json:"since"`
	Until    uintptr `json:"until"`
	Inode    uintptr `json:"inode"`
	Waiting  uintptr `json:"waiting"`
	Longest  uintptr `json:"longest"`
	Attempts uintptr `json:"attempts"` // of the operation
	Acquired uintptr `json:"acquired"` // of the operation
	Waits    uintptr `json:"waits"`
	SubBits  int     `json:"subBits"`
}

// Layout returns where a worker that has one goroutine, and does only one
// operation, writes.
func (b *Board) Layout(worker, operation int) *Layout {
	s := &b.of(worker)[0]
	at := func(p unsafe.Pointer) uintptr { return uintptr(p) - uintptr(unsafe.Pointer(&b.data[0])) }
	return &Layout{
		Phase:    at(unsafe.Pointer(&b.header.phase)),
		Reads:    at(unsafe.Pointer(&s.reads)),
		Writes:   at(unsafe.Pointer(&s.writes)),
		Since:    at(unsafe.Pointer(&s.since)),
		Until:    at(unsafe.Pointer(&s.until)),
		Inode:    at(unsafe.Pointer(&s.inode)),
		Waiting:  at(unsafe.Pointer(&s.tally.Waiting)),
		Longest:  at(unsafe.Pointer(&s.tally.Longest)),
		Attempts: at(unsafe.Pointer(&s.tally.Attempts[operation])),
		Acquired: at(unsafe.Pointer(&s.tally.Acquired[operation])),
		Waits:    at(unsafe.Pointer(&s.tally.Waits)),
		SubBits:  subBits,
	}
}
