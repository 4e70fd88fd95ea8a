package worker

import (
	"fmt"
	"iter"
	"os"
	"sync/atomic"
	"time"
	"unsafe"
)

// A Board is memory that the workers share with the process that has started
// them. Each goroutine that acquires the lock has a slot, in which it publishes
// when it holds the lock, and looks into the slots of all others: so a holder
// finds out by itself that it is not alone.
//
// A slot counts steps, one for each time its goroutine begins to hold the lock
// and one for each time it ends that. So the count is odd during a hold.
// Readers and writers have separate counts: a writer excludes both, a reader
// only writers. A goroutine
//
//	acquires the lock, looks at the counts of the others, makes a step,
//	makes a step, looks at the counts again, and releases the lock.
//
// It was not alone if a count was odd at the first look, or has changed by the
// second one. Any two holds that overlap from step to step are noticed, and by
// both holders. Here B looks before A makes its step, but A makes the step
// before B looks again:
//
//	A                                       B
//	acquire                                 acquire
//	                                        look: A is even
//	                                        step
//	step
//	...                                     step
//	                                        look: A has changed
//
// If A had made its step after the second look of B, it would have made it
// after the last step of B, and the holds would not have overlapped. And as a
// goroutine looks only while it holds the lock, what it notices is an error,
// however slow the processes are.
//
// A process that is killed as it holds the lock leaves an odd count behind, and
// the next holder can be faster than the process that waits for the dead one:
//
//	A                         parent                         B
//	step: odd
//	                          kill A
//	(dead: lock is released)
//	                                                         acquire
//	                                                         look: A is odd
//	                          wait for A
//
// Therefore the parent writes on the board which process it will kill before it
// does so. B reads that after the count: if it finds A odd and not to be
// killed, both hold the lock. If A is to be killed, that can be as above, and B
// does not judge, unless A makes another step before the second look. The
// kernel releases the locks of a process when the last of its threads is gone,
// so after that no count of A changes.
//
// When the parent has waited for A, it sets the counts to 0 for the next
// process, which uses the same slots. A count has the number of the process,
// its incarnation, so B can tell them apart. What A did between the first look
// of B and its death is lost then: of a process that is killed, that much is
// not judged.
type Board struct {
	path   string
	header *header
	marks  []mark // of the workers
	slots  []slot // of all goroutines of the first worker, then of the second one, and so on
	seats  int    // slots of each worker
	data   []byte
}

// A Phase is what all goroutines do.
type Phase uint64

// The phases of a run.
const (
	Running Phase = iota
	Paused        // no goroutine begins to acquire the lock
	Stopped       // and the workers end
)

type header struct {
	phase atomic.Uint64
	_     [56]byte
}

// A mark is about one worker. Only the parent writes it.
type mark struct {
	incarnation atomic.Uint64 // of the process that uses the slots; the first is 1
	killed      atomic.Uint64 // processes up to this incarnation are killed, or will be in a moment
	pid         atomic.Uint64
	_           [40]byte
}

// A slot belongs to one goroutine, which is the only one to write it, but for
// the parent when the process is gone. So a Python process, which has no atomic
// operations, can do that, too.
type slot struct {
	reads, writes atomic.Uint64 // steps, and the incarnation above stepBits
	since, until  atomic.Int64  // Unix time, in nanoseconds, of the last hold
	inode         atomic.Uint64 // of the file that is held
	tally         Tally
}

const stepBits = 40

func steps(count uint64) uint64       { return count & (1<<stepBits - 1) }
func incarnation(count uint64) uint64 { return count >> stepBits }

func boardSize(workers, seats int) int {
	return int(unsafe.Sizeof(header{})) + workers*int(unsafe.Sizeof(mark{})) +
		workers*seats*int(unsafe.Sizeof(slot{}))
}

// createBoard creates the file of a board, which is not in the directory that
// is tried: its file system may not support shared memory.
func createBoard(workers, seats int) (*Board, error) {
	f, err := os.CreateTemp("", "fasteners-board-")
	if err != nil {
		return nil, err
	}
	err = f.Truncate(int64(boardSize(workers, seats)))
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	var b *Board
	if err == nil {
		b, err = openBoard(f.Name(), workers, seats)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return b, err
}

func openBoard(path string, workers, seats int) (*Board, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := mapShared(f, boardSize(workers, seats))
	if err != nil {
		return nil, fmt.Errorf("share memory in %s: %w", path, err)
	}
	b := &Board{path: path, header: (*header)(unsafe.Pointer(&data[0])), seats: seats, data: data}
	rest := data[unsafe.Sizeof(header{}):]
	b.marks = unsafe.Slice((*mark)(unsafe.Pointer(&rest[0])), workers)
	rest = rest[workers*int(unsafe.Sizeof(mark{})):]
	b.slots = unsafe.Slice((*slot)(unsafe.Pointer(&rest[0])), workers*seats)
	return b, nil
}

// Phase returns the phase of the run.
func (b *Board) Phase() Phase { return Phase(b.header.phase.Load()) }

// SetPhase begins the next phase.
func (b *Board) SetPhase(p Phase) { b.header.phase.Store(uint64(p)) }

// A Position tells goroutines apart.
type Position struct {
	Worker    int `json:"worker"`
	Goroutine int `json:"goroutine"`
}

func (b *Board) position(slot int) Position { return Position{slot / b.seats, slot % b.seats} }

// Tallies returns the tallies of all goroutines.
func (b *Board) Tallies() iter.Seq2[Position, *Tally] {
	return func(yield func(Position, *Tally) bool) {
		for i := range b.slots {
			if !yield(b.position(i), &b.slots[i].tally) {
				return
			}
		}
	}
}

func (b *Board) of(worker int) []slot { return b.slots[worker*b.seats : (worker+1)*b.seats] }

// admit prepares the slots of a worker for a new process.
func (b *Board) admit(worker int) {
	m := &b.marks[worker]
	next := m.incarnation.Add(1)
	for i := range b.of(worker) {
		s := &b.of(worker)[i]
		s.tally.Waiting.Store(0)
		s.reads.Store(next << stepBits)
		s.writes.Store(next << stepBits)
	}
}

// condemn is called before a worker is killed.
func (b *Board) condemn(worker int) {
	m := &b.marks[worker]
	m.killed.Store(m.incarnation.Load())
}

// A Seat is what a goroutine has of the board.
type Seat struct {
	board  *Board
	number int
	reads  []uint64 // the counts at the first look
	writes []uint64
}

// Sit returns the seat of a goroutine.
func (b *Board) Sit(worker, goroutine int) *Seat {
	n := len(b.slots)
	return &Seat{b, worker*b.seats + goroutine, make([]uint64, n), make([]uint64, n)}
}

func (s *Seat) slot() *slot { return &s.board.slots[s.number] }

// Tally returns what the goroutine counts.
func (s *Seat) Tally() *Tally { return &s.slot().tally }

// Own returns the last hold of the goroutine.
func (s *Seat) Own(mode Mode) *Interval { return s.board.interval(s.number, mode) }

// An Interval is a hold of the lock, as evidence.
type Interval struct {
	PID int `json:"pid"`
	Position
	Mode  Mode      `json:"mode"` // read or write
	Since time.Time `json:"since"`
	Until time.Time `json:"until,omitzero"` // zero if the hold was not over when it was noticed
	Inode uint64    `json:"inode,omitempty"`
}

// Begin is called by a goroutine that has acquired the lock. It returns a hold
// that prevents that.
func (s *Seat) Begin(mode Mode, inode uint64) *Interval {
	var other *Interval
	own := s.slot()
	for i := range s.board.slots {
		if i == s.number {
			continue
		}
		o := &s.board.slots[i]
		s.writes[i] = o.writes.Load()
		if other == nil && s.board.isInside(i, s.writes[i]) {
			other = s.board.interval(i, Write)
		}
		if mode == Read {
			continue
		}
		s.reads[i] = o.reads.Load()
		if other == nil && s.board.isInside(i, s.reads[i]) {
			other = s.board.interval(i, Read)
		}
	}
	own.inode.Store(inode)
	own.since.Store(time.Now().UnixNano())
	if mode == Read {
		own.reads.Add(1)
	} else {
		own.writes.Add(1)
	}
	return other
}

// isInside reports whether a hold with that count goes on in a process that
// will not be killed.
func (b *Board) isInside(slot int, count uint64) bool {
	return count&1 == 1 && b.marks[slot/b.seats].killed.Load() < incarnation(count)
}

// End is called by a goroutine that is about to release the lock. It returns a
// hold that overlaps its own.
func (s *Seat) End(mode Mode) *Interval {
	own := s.slot()
	own.until.Store(time.Now().UnixNano())
	if mode == Read {
		own.reads.Add(1)
	} else {
		own.writes.Add(1)
	}
	return s.lookAgain(mode)
}

// Downgrade is called by a goroutine that is about to downgrade the lock from
// write to read. Its hold as a reader begins before that. It keeps the counts
// of the writers: no writer may hold the lock in between.
func (s *Seat) Downgrade() *Interval {
	own := s.slot()
	own.reads.Add(1)
	own.writes.Add(1)
	return s.lookAgain(Write)
}

func (s *Seat) lookAgain(mode Mode) *Interval {
	for i := range s.board.slots {
		if i == s.number {
			continue
		}
		o := &s.board.slots[i]
		if hasStepped(s.writes[i], o.writes.Load()) {
			return s.board.interval(i, Write)
		}
		if mode != Read && hasStepped(s.reads[i], o.reads.Load()) {
			return s.board.interval(i, Read)
		}
	}
	return nil
}

// hasStepped reports whether a goroutine has made a step. The parent's
// admission of the next process is none.
func hasStepped(before, now uint64) bool {
	if incarnation(before) != incarnation(now) {
		return steps(now) != 0
	}
	return before != now
}

func (b *Board) interval(slot int, mode Mode) *Interval {
	s := &b.slots[slot]
	v := &Interval{
		PID:      int(b.marks[slot/b.seats].pid.Load()),
		Position: b.position(slot),
		Mode:     mode,
		Since:    time.Unix(0, s.since.Load()),
		Inode:    s.inode.Load(),
	}
	if until := s.until.Load(); until > s.since.Load() {
		v.Until = time.Unix(0, until)
	}
	return v
}
