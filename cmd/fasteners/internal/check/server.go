package check

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/worker"
)

// A request is what the process that checks a file system wants of one of its
// workers.
type request struct {
	Do      string        // join, acquire, try, release, count, touch or remove (and release)
	Mode    worker.Mode   `json:",omitempty"`
	Timeout time.Duration `json:",omitempty"` // of acquire and count

	Place   *worker.Place `json:",omitempty"` // of join, which comes first
	Counter string        `json:",omitempty"` // of count: the path of the file with the number
}

// A reply is the outcome of a request.
type reply struct {
	OK       bool             // the lock was acquired or released
	Error    string           // of anything but a wait that timed out
	Replaced bool             // the error of the release is ErrReplaced
	At       int64            // Unix time, in nanoseconds, after the acquire or before the release
	N        int              // how often count has counted
	Other    *worker.Interval `json:",omitempty"` // a hold that overlapped one of count
}

// A server is a worker: it does what is requested of it.
type server struct {
	path string // of the lock
	lock worker.Lock
	hold *worker.Hold // or nil
	seat *worker.Seat
}

// serve answers the requests that come from standard input.
func serve() error {
	worker.IgnoreTerminal()
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	var s server
	for {
		var r request
		if err := in.Decode(&r); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		reply, err := s.do(r)
		if err != nil {
			reply.Error = err.Error()
		}
		if err := out.Encode(reply); err != nil {
			return err
		}
	}
}

func (s *server) do(r request) (reply, error) {
	switch r.Do {
	case "join":
		return reply{OK: true}, s.join(r.Place)
	case "acquire":
		return s.acquire(r)
	case "try":
		h, err := s.lock.Acquire(context.Background(), r.Mode, true)
		if h != nil {
			s.hold = h
		}
		return reply{OK: h != nil}, err
	case "release", "remove":
		return s.release(r)
	case "count":
		return s.count(r)
	case "touch":
		// Windows lets nobody read the byte that is locked, but there is none.
		_, err := os.ReadFile(s.path)
		return reply{OK: err == nil}, err
	}
	return reply{}, fmt.Errorf("unknown request: %q", r.Do)
}

func (s *server) join(p *worker.Place) error {
	b, err := p.OpenBoard()
	if err != nil {
		return err
	}
	s.path, s.seat = p.Lock, b.Sit(p.Number, 0)
	s.lock, err = p.NewLock(false)
	return err
}

func (s *server) acquire(r request) (reply, error) {
	ctx, cancel := context.WithTimeout(context.Background(), r.Timeout)
	defer cancel()
	h, err := s.lock.Acquire(ctx, r.Mode, false)
	at := time.Now().UnixNano()
	if errors.Is(err, context.DeadlineExceeded) {
		return reply{}, nil
	}
	if err == nil {
		s.hold = h
	}
	return reply{OK: err == nil, At: at}, err
}

// release removes the lock file before, if that is wanted, with nothing in
// between: a waiter may look at it.
func (s *server) release(r request) (reply, error) {
	if s.hold == nil {
		return reply{}, fasteners.ErrNotAcquired
	}
	h := s.hold
	s.hold = nil
	at := time.Now().UnixNano()
	var removeErr error
	if r.Do == "remove" {
		removeErr = os.Remove(s.path)
	}
	err := h.Release()
	replaced := errors.Is(err, fasteners.ErrReplaced)
	if r.Do == "remove" && replaced {
		err = removeErr
	}
	return reply{OK: err == nil, At: at, Replaced: replaced}, err
}

// count increments the number in a file, as often as it can.
func (s *server) count(r request) (reply, error) {
	ctx, cancel := context.WithTimeout(context.Background(), r.Timeout)
	defer cancel()
	answer := reply{OK: true}
	for ctx.Err() == nil {
		h, err := s.lock.Acquire(ctx, worker.Write, false)
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil {
			return answer, err
		}
		before := s.seat.Begin(worker.Write, 0)
		err = increment(r.Counter)
		after := s.seat.End(worker.Write)
		if answer.Other == nil {
			answer.Other = cmp.Or(before, after)
		}
		if releaseErr := h.Release(); err == nil {
			err = releaseErr
		}
		if err != nil {
			return answer, err
		}
		answer.N++
		if answer.N%8 == 0 {
			// Where waiters poll, others would hardly get the lock.
			time.Sleep(rand.N(2 * time.Millisecond))
		}
	}
	return answer, nil
}

func increment(path string) error {
	n, err := readCounter(path)
	if err != nil {
		return err
	}
	// The number has a fixed length, so that no reader sees a part of a longer one.
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%012d", n+1)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

func readCounter(path string) (int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(data)))
}
