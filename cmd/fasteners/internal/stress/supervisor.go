package stress

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"strings"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/cli"
	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/worker"
)

// A supervisor is what the process that has started the workers knows. Only the
// goroutine that calls run uses it, except for found.
type supervisor struct {
	options
	ctx     context.Context
	crew    *worker.Crew
	python  []string // the command that starts a peer, or nil
	stderr  io.Writer
	line    *cli.ProgressLine
	start   time.Time
	elapsed time.Duration
	kills   int
	found   chan violation
	first   *violation
	hang    suspicion
	dumps   chan string
	chance  *rand.Rand
}

func newSupervisor(ctx context.Context, stderr io.Writer, dir string, o options) (*supervisor, error) {
	s := &supervisor{
		options: o,
		ctx:     ctx,
		stderr:  stderr,
		line:    cli.NewProgressLine(stderr),
		found:   make(chan violation, 1024),
		dumps:   make(chan string, 16),
		chance:  rand.New(rand.NewPCG(o.seed, 1<<63)),
	}
	var err error
	if o.peer != "" {
		if s.python, err = findPython(); err != nil {
			return nil, err
		}
	}
	s.crew, err = worker.NewCrew(dir, ".fasteners-stress-", o.processes+s.peers(), o.goroutines)
	return s, err
}

func (s *supervisor) peers() int {
	if s.python == nil {
		return 0
	}
	return pythonPeers
}

func (s *supervisor) startAll() error {
	s.start = time.Now()
	for i := range s.crew.Workers {
		if err := s.startOne(i); err != nil {
			return err
		}
	}
	return nil
}

// startOne starts the first or the next process of a worker.
func (s *supervisor) startOne(number int) error {
	isPeer := number >= s.processes
	var cmd *exec.Cmd
	var err error
	if isPeer {
		cmd, err = pythonCommand(s.python)
	} else {
		cmd, err = worker.Command("stress", s.crew.Dir)
	}
	if err != nil {
		return err
	}
	w, err := s.crew.Start(number, cmd)
	if err != nil {
		return err
	}
	go s.listen(w)
	o := order{Place: s.crew.Place(number), Seed: s.seed, Removals: s.removals}
	if isPeer {
		o.Layout = s.crew.Board.Layout(number, doExclusive)
	}
	if w.Send(o) != nil {
		return w.Failure()
	}
	return nil
}

// listen passes the messages of a worker on. What does not fit is not needed:
// the board has the number of violations, and the first one ends the run.
func (s *supervisor) listen(w *worker.Process) {
	for line := range w.Messages {
		var m message
		if json.Unmarshal(line, &m) != nil {
			m.Violation = &violation{What: fmt.Sprintf("process %d has written %s", w.PID(), line)}
		}
		if m.Dump != "" {
			select {
			case s.dumps <- m.Dump:
			default:
			}
		}
		if m.Violation != nil {
			select {
			case s.found <- *m.Violation:
			default:
			}
		}
	}
}

// close ends what is left, and removes everything.
func (s *supervisor) close() error {
	if !s.keep {
		return s.crew.Close()
	}
	s.crew.End()
	fmt.Fprintf(s.stderr, "kept %s\n", s.crew.Dir)
	return nil
}

// run lets the workers run until the time is over, there is a violation, or the
// user wants the end.
func (s *supervisor) run() {
	end := time.NewTimer(s.duration)
	defer end.Stop()
	second := time.NewTicker(time.Second)
	defer second.Stop()
	nextKill := s.start.Add(s.untilKill())
	kill := time.NewTimer(time.Until(nextKill))
	defer kill.Stop()
	for n := 1; ; {
		select {
		case <-s.ctx.Done():
			return
		case <-end.C:
			return
		case v := <-s.found:
			s.first = &v
			return
		case <-kill.C:
			if err := s.killOne(); err != nil {
				s.first = &violation{What: "a worker could not be started again: " + err.Error()}
				return
			}
			if time.Since(nextKill) > time.Second { // the machine was asleep, say
				nextKill = time.Now()
			}
			nextKill = nextKill.Add(s.untilKill())
			kill.Reset(time.Until(nextKill))
		case <-second.C:
			if v := s.watch(); v != nil {
				s.first = v
				return
			}
			if s.line.InPlace || n%10 == 0 {
				s.line.Print(s.progress())
			}
			n++
		}
	}
}

// untilKill returns the time from one kill to the next.
func (s *supervisor) untilKill() time.Duration {
	if s.killRate == 0 {
		return 1 << 62
	}
	return time.Duration((0.5 + s.chance.Float64()) / s.killRate * float64(time.Second))
}

// killOne kills a process, and starts the next one in its place.
func (s *supervisor) killOne() error {
	if s.hang.tally != nil {
		return nil // one that may hang must not be killed, nor the holder that it waits for
	}
	i := s.chance.IntN(len(s.crew.Workers))
	if v := s.endedByItself(); v != nil {
		return nil // watch tells
	}
	s.crew.Kill(i)
	s.kills++
	return s.startOne(i)
}

func (s *supervisor) endedByItself() *violation {
	for _, w := range s.crew.Workers {
		select {
		case <-w.Exited:
			return &violation{What: w.Failure().Error()}
		default:
		}
	}
	return nil
}

func (s *supervisor) progress() string {
	elapsed := time.Since(s.start)
	var acquired, violations uint64
	for _, t := range s.crew.Board.Tallies() {
		violations += t.Violations.Load()
		for op := range t.Acquired {
			acquired += t.Acquired[op].Load()
		}
	}
	return fmt.Sprintf("%v: %d acquisitions, %.0f/s, %d kills, %d violations",
		elapsed.Round(time.Second), acquired, float64(acquired)/elapsed.Seconds(), s.kills, violations)
}

// A suspicion is that a goroutine waits though the lock is free.
type suspicion struct {
	at      worker.Position
	tally   *worker.Tally // of the goroutine, or nil
	waiting int64         // of the tally: another value means that the goroutine goes on
	since   time.Time
}

// watch looks for goroutines that have waited for a long time. That alone need
// not be wrong: others may have been faster. So when there is one, no goroutine
// may begin to acquire the lock any more, and the one that waits must get it as
// soon as the holders have released it.
func (s *supervisor) watch() *violation {
	if v := s.endedByItself(); v != nil {
		return v
	}
	if h := &s.hang; h.tally != nil {
		switch {
		case h.tally.Waiting.Load() != h.waiting:
			*h = suspicion{}
			s.crew.Board.SetPhase(worker.Running)
		case time.Since(h.since) >= s.hangAfter:
			return s.hung(h.at)
		}
		return nil
	}
	for at, t := range s.crew.Board.Tallies() {
		waiting := t.Waiting.Load()
		if waiting != 0 && time.Since(time.Unix(0, waiting)) >= s.hangAfter {
			s.crew.Board.SetPhase(worker.Paused)
			s.hang = suspicion{at, t, waiting, time.Now()}
			return nil
		}
	}
	return nil
}

// hung returns the violation of a goroutine that does not go on, with a dump of
// its process.
func (s *supervisor) hung(at worker.Position) *violation {
	w := s.crew.Workers[at.Worker]
	v := &violation{What: fmt.Sprintf(
		"goroutine %d of process %d does not get the lock, though nobody else wants it (%s)",
		at.Goroutine, w.PID(), s.holders())}
	if w.Send("dump") != nil {
		return v
	}
	select {
	case v.Dump = <-s.dumps:
	case <-w.Exited:
	case <-time.After(10 * time.Second):
		v.Dump = "the process does not answer"
	}
	return v
}

// holders tells who holds the lock, as far as the library knows that.
func (s *supervisor) holders() string {
	all, err := fasteners.NewInterProcessLock(s.crew.Lock).Holders()
	if err != nil {
		return err.Error()
	}
	var holders []string
	for _, h := range all {
		if !h.Waiting {
			holders = append(holders, h.String())
		}
	}
	if len(holders) == 0 {
		return "the lock is free"
	}
	return "held by " + strings.Join(holders, ", ")
}

// stop ends the run. All waits have to end now.
func (s *supervisor) stop() {
	s.line.Clear()
	s.elapsed = time.Since(s.start)
	s.crew.Board.SetPhase(worker.Stopped)
	judge := s.first == nil && s.ctx.Err() == nil
	grace := s.hangAfter
	if !judge {
		grace = min(grace, 2*time.Second)
	}
	limit := time.After(grace)
	for i, w := range s.crew.Workers {
		select {
		case <-w.Exited:
		case <-limit:
			if judge && s.first == nil {
				s.first = s.stillRunning(i)
			}
			s.crew.Kill(i)
			limit = time.After(0)
		}
		if judge && s.first == nil && w.Err != nil {
			s.first = &violation{What: w.Failure().Error()}
		}
	}
	s.choose()
}

// choose takes of the violations that are known the one that tells most.
func (s *supervisor) choose() {
	for {
		select {
		case v := <-s.found:
			if s.first == nil || len(v.Holds) > len(s.first.Holds) && s.first.Dump == "" {
				s.first = &v
			}
		default:
			return
		}
	}
}

// stillRunning returns the violation of a worker that does not end.
func (s *supervisor) stillRunning(number int) *violation {
	hanging := worker.Position{Worker: number}
	for at, t := range s.crew.Board.Tallies() {
		if at.Worker == number && t.Waiting.Load() != 0 {
			hanging = at
			break
		}
	}
	return s.hung(hanging)
}
