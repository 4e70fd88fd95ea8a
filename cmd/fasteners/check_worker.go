package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/go-fasteners/fasteners"
)

// A request is what the process that checks a file system wants of one of its workers.
type request struct {
	Do      string        // join, acquire, try, release, count, touch or remove (and release)
	Mode    holdMode      `json:",omitempty"`
	Timeout time.Duration `json:",omitempty"` // of acquire and count

	// For join, which comes first:
	Dir     string `json:",omitempty"`
	Board   string `json:",omitempty"`
	Number  int    `json:",omitempty"`
	Workers int    `json:",omitempty"`
}

// A reply is the outcome of a request.
type reply struct {
	OK       bool      // the lock was acquired or released
	Error    string    // of anything but a wait that timed out
	Replaced bool      // the error of the release is ErrReplaced
	At       int64     // when the lock was acquired, or was about to be released; Unix time in nanoseconds
	N        int       // how often count has counted
	Other    *interval `json:",omitempty"` // a hold that overlapped one of count
}

const lockName, counterName = "lock", "counter"

// A checkWorker does what it is told.
type checkWorker struct {
	dir  string
	lock workerLock
	hold *workerHold // or nil
	seat *seat
}

func runCheckWorker() error {
	ignoreTerminal()
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	var w checkWorker
	for {
		var r request
		if err := in.Decode(&r); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		reply, err := w.do(r)
		if err != nil {
			reply.Error = err.Error()
		}
		if err := out.Encode(reply); err != nil {
			return err
		}
	}
}

func (w *checkWorker) do(r request) (reply, error) {
	switch r.Do {
	case "join":
		return reply{OK: true}, w.join(r)
	case "acquire":
		return w.acquire(r)
	case "try":
		h, err := w.lock.acquire(context.Background(), r.Mode, true)
		if h != nil {
			w.hold = h
		}
		return reply{OK: h != nil}, err
	case "release", "remove":
		return w.release(r)
	case "count":
		return w.count(r)
	case "touch":
		// Windows lets nobody read the byte that is locked, but there is none.
		_, err := os.ReadFile(filepath.Join(w.dir, lockName))
		return reply{OK: err == nil}, err
	}
	return reply{}, fmt.Errorf("unknown request: %q", r.Do)
}

func (w *checkWorker) join(r request) error {
	b, err := openBoard(r.Board, r.Workers, 1)
	if err != nil {
		return err
	}
	w.dir, w.seat = r.Dir, b.sit(r.Number, 0)
	w.lock, err = newWorkerLock(filepath.Join(r.Dir, lockName), r.Number, false)
	return err
}

func (w *checkWorker) acquire(r request) (reply, error) {
	ctx, cancel := context.WithTimeout(context.Background(), r.Timeout)
	defer cancel()
	h, err := w.lock.acquire(ctx, r.Mode, false)
	at := time.Now().UnixNano()
	if errors.Is(err, context.DeadlineExceeded) {
		return reply{}, nil
	}
	if err == nil {
		w.hold = h
	}
	return reply{OK: err == nil, At: at}, err
}

// release removes the lock file before, if that is wanted, with nothing in between: a waiter may look at
// it.
func (w *checkWorker) release(r request) (reply, error) {
	if w.hold == nil {
		return reply{}, fasteners.ErrNotAcquired
	}
	h := w.hold
	w.hold = nil
	at := time.Now().UnixNano()
	var removeErr error
	if r.Do == "remove" {
		removeErr = os.Remove(filepath.Join(w.dir, lockName))
	}
	err := h.release()
	replaced := errors.Is(err, fasteners.ErrReplaced)
	if r.Do == "remove" && replaced {
		err = removeErr
	}
	return reply{OK: err == nil, At: at, Replaced: replaced}, err
}

// count increments the number in a file, as often as it can.
func (w *checkWorker) count(r request) (reply, error) {
	ctx, cancel := context.WithTimeout(context.Background(), r.Timeout)
	defer cancel()
	answer := reply{OK: true}
	for ctx.Err() == nil {
		h, err := w.lock.acquire(ctx, write, false)
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil {
			return answer, err
		}
		before := w.seat.begin(write, 0)
		err = increment(filepath.Join(w.dir, counterName))
		after := w.seat.end(write)
		if answer.Other == nil {
			answer.Other = cmp.Or(before, after)
		}
		if releaseErr := h.release(); err == nil {
			err = releaseErr
		}
		if err != nil {
			return answer, err
		}
		answer.N++
		if answer.N%8 == 0 {
			time.Sleep(rand.N(2 * time.Millisecond)) // where waiters poll, others would hardly get the lock
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
