package main

import (
	"fmt"
	"math/bits"
	"os"
	"sync/atomic"
	"time"
	"unsafe"
)

// A board is memory that the workers share with the process that has started them. Each goroutine that
// acquires the lock has a slot, in which it publishes when it holds the lock, and looks into the slots of
// all others: so a holder finds out by itself that it is not alone.
//
// A slot counts steps, one for each time its goroutine begins to hold the lock and one for each time it
// ends that. So the count is odd during a hold. Readers and writers have separate counts: a writer
// excludes both, a reader only writers. A goroutine
//
//	acquires the lock, looks at the counts of the others, makes a step,
//	makes a step, looks at the counts again, and releases the lock.
//
// It was not alone if a count was odd at the first look, or has changed by the second one. Any two holds
// that overlap from step to step are noticed, and by both holders. Here B looks before A makes its step,
// but A makes the step before B looks again:
//
//	A                                       B
//	acquire                                 acquire
//	                                        look: A is even
//	                                        step
//	step
//	...                                     step
//	                                        look: A has changed
//
// If A had made its step after the second look of B, it would have made it after the last step of B, and
// the holds would not have overlapped. And as a goroutine looks only while it holds the lock, what it
// notices is an error, however slow the processes are.
//
// A process that is killed as it holds the lock leaves an odd count behind, and the next holder can be
// faster than the process that waits for the dead one:
//
//	A                         parent                         B
//	step: odd
//	                          kill A
//	(dead: lock is released)
//	                                                         acquire
//	                                                         look: A is odd
//	                          wait for A
//
// Therefore the parent writes on the board which process it will kill before it does so. B reads that
// after the count: if it finds A odd and not to be killed, both hold the lock. If A is to be killed, that
// can be as above, and B does not judge, unless A makes another step before the second look. The kernel
// releases the locks of a process when the last of its threads is gone, so after that no count of A
// changes.
//
// When the parent has waited for A, it sets the counts to 0 for the next process, which uses the same
// slots. A count has the number of the process, its incarnation, so B can tell them apart. What A did
// between the first look of B and its death is lost then: of a process that is killed, that much is not
// judged.
type board struct {
	header *header
	marks  []mark // of the workers
	slots  []slot // of all goroutines of the first worker, then of the second one, and so on
	seats  int    // slots of each worker
	data   []byte
}

// The phases of a run.
const (
	running = iota
	paused  // no goroutine begins to acquire the lock
	stopped // and the workers end
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

// A slot belongs to one goroutine, which is the only one to write it, but for the parent when the process
// is gone. So a Python process, which has no atomic operations, can do that, too.
type slot struct {
	reads, writes atomic.Uint64 // steps, and the incarnation above stepBits
	since, until  atomic.Int64  // Unix time, in nanoseconds, of the last hold
	inode         atomic.Uint64 // of the file that is held
	waiting       atomic.Int64  // since then the goroutine acquires the lock; 0 if it does not
	violations    atomic.Uint64
	ended         atomic.Uint64 // waits that a context has ended
	longest       atomic.Int64  // of the waits that have succeeded, in nanoseconds
	attempts      [operations]atomic.Uint64
	acquired      [operations]atomic.Uint64
	waits         [waitBuckets]atomic.Uint64
}

const stepBits = 40

func steps(count uint64) uint64       { return count & (1<<stepBits - 1) }
func incarnation(count uint64) uint64 { return count >> stepBits }

func boardSize(workers, seats int) int {
	return int(unsafe.Sizeof(header{})) + workers*int(unsafe.Sizeof(mark{})) +
		workers*seats*int(unsafe.Sizeof(slot{}))
}

// createBoard creates the file of a board, which is not in the directory that is tried: its file system
// may not support shared memory.
func createBoard(workers, seats int) (*board, string, error) {
	f, err := os.CreateTemp("", "fasteners-board-")
	if err != nil {
		return nil, "", err
	}
	path := f.Name()
	err = f.Truncate(int64(boardSize(workers, seats)))
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	var b *board
	if err == nil {
		b, err = openBoard(path, workers, seats)
	}
	if err != nil {
		_ = os.Remove(path)
	}
	return b, path, err
}

func openBoard(path string, workers, seats int) (*board, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := mapShared(f, boardSize(workers, seats))
	if err != nil {
		return nil, fmt.Errorf("share memory in %s: %w", path, err)
	}
	b := &board{header: (*header)(unsafe.Pointer(&data[0])), seats: seats, data: data}
	rest := data[unsafe.Sizeof(header{}):]
	b.marks = unsafe.Slice((*mark)(unsafe.Pointer(&rest[0])), workers)
	rest = rest[workers*int(unsafe.Sizeof(mark{})):]
	b.slots = unsafe.Slice((*slot)(unsafe.Pointer(&rest[0])), workers*seats)
	return b, nil
}

func (b *board) of(worker int) []slot { return b.slots[worker*b.seats : (worker+1)*b.seats] }

// admit prepares the slots of a worker for a new process.
func (b *board) admit(worker int) {
	m := &b.marks[worker]
	next := m.incarnation.Add(1)
	for i := range b.of(worker) {
		s := &b.of(worker)[i]
		s.waiting.Store(0)
		s.reads.Store(next << stepBits)
		s.writes.Store(next << stepBits)
	}
}

// condemn is called before a worker is killed.
func (b *board) condemn(worker int) {
	m := &b.marks[worker]
	m.killed.Store(m.incarnation.Load())
}

// A seat is what a goroutine has of the board.
type seat struct {
	*board
	number int
	reads  []uint64 // the counts at the first look
	writes []uint64
}

func (b *board) sit(worker, goroutine int) *seat {
	n := len(b.slots)
	return &seat{b, worker*b.seats + goroutine, make([]uint64, n), make([]uint64, n)}
}

func (s *seat) slot() *slot { return &s.slots[s.number] }

// An interval is a hold of the lock, as evidence.
type interval struct {
	PID       int       `json:"pid"`
	Worker    int       `json:"worker"`
	Goroutine int       `json:"goroutine"`
	Mode      holdMode  `json:"mode"` // read or write
	Since     time.Time `json:"since"`
	Until     time.Time `json:"until,omitzero"` // zero if the hold was not over when it was noticed
	Inode     uint64    `json:"inode,omitempty"`
}

// begin is called by a goroutine that has acquired the lock. It returns a hold that prevents that.
func (s *seat) begin(mode holdMode, inode uint64) *interval {
	var other *interval
	own := s.slot()
	for i := range s.slots {
		if i == s.number {
			continue
		}
		o := &s.slots[i]
		s.writes[i] = o.writes.Load()
		if other == nil && s.isInside(i, s.writes[i]) {
			other = s.interval(i, write)
		}
		if mode == read {
			continue
		}
		s.reads[i] = o.reads.Load()
		if other == nil && s.isInside(i, s.reads[i]) {
			other = s.interval(i, read)
		}
	}
	own.inode.Store(inode)
	own.since.Store(time.Now().UnixNano())
	if mode == read {
		own.reads.Add(1)
	} else {
		own.writes.Add(1)
	}
	return other
}

// isInside reports whether a hold with that count goes on in a process that will not be killed.
func (b *board) isInside(slot int, count uint64) bool {
	return count&1 == 1 && b.marks[slot/b.seats].killed.Load() < incarnation(count)
}

// end is called by a goroutine that is about to release the lock. It returns a hold that overlaps its
// own.
func (s *seat) end(mode holdMode) *interval {
	own := s.slot()
	own.until.Store(time.Now().UnixNano())
	if mode == read {
		own.reads.Add(1)
	} else {
		own.writes.Add(1)
	}
	return s.lookAgain(mode)
}

// downgrade is called by a goroutine that is about to downgrade the lock from write to read. Its hold as
// a reader begins before that. It keeps the counts of the writers: no writer may hold the lock in
// between.
func (s *seat) downgrade() *interval {
	own := s.slot()
	own.reads.Add(1)
	own.writes.Add(1)
	return s.lookAgain(write)
}

func (s *seat) lookAgain(mode holdMode) *interval {
	for i := range s.slots {
		if i == s.number {
			continue
		}
		o := &s.slots[i]
		if hasStepped(s.writes[i], o.writes.Load()) {
			return s.interval(i, write)
		}
		if mode != read && hasStepped(s.reads[i], o.reads.Load()) {
			return s.interval(i, read)
		}
	}
	return nil
}

// hasStepped reports whether a goroutine has made a step. The parent's admission of the next process is
// none.
func hasStepped(before, now uint64) bool {
	if incarnation(before) != incarnation(now) {
		return steps(now) != 0
	}
	return before != now
}

func (b *board) interval(slot int, mode holdMode) *interval {
	s := &b.slots[slot]
	v := &interval{
		PID:       int(b.marks[slot/b.seats].pid.Load()),
		Worker:    slot / b.seats,
		Goroutine: slot % b.seats,
		Mode:      mode,
		Since:     time.Unix(0, s.since.Load()),
		Inode:     s.inode.Load(),
	}
	if until := s.until.Load(); until > s.since.Load() {
		v.Until = time.Unix(0, until)
	}
	return v
}

// Waits are counted in buckets whose limits grow by an eighth.
const (
	subBits     = 3
	waitBuckets = 64 << subBits
)

func waitBucket(d time.Duration) int {
	n := uint64(max(d, 1<<subBits))
	shift := bits.Len64(n) - 1 - subBits
	return shift<<subBits + int(n>>shift)
}

// waitOf returns the greatest wait of a bucket.
func waitOf(bucket int) time.Duration {
	shift := max(0, bucket>>subBits-1)
	return time.Duration(uint64(bucket-shift<<subBits+1)<<shift - 1)
}
