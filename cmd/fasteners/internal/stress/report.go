package stress

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/cli"
	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/file"
	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/worker"
)

// A report is what --json prints.
type report struct {
	Directory    string            `json:"directory"`
	FileSystem   file.System       `json:"fileSystem"`
	Seed         uint64            `json:"seed"`
	Processes    int               `json:"processes"`
	Goroutines   int               `json:"goroutines"`
	Peers        int               `json:"peers"`
	Seconds      float64           `json:"seconds"`
	Operations   []operationReport `json:"operations"`
	Acquisitions uint64            `json:"acquisitions"`
	Kills        int               `json:"kills"`
	Ended        uint64            `json:"endedWaits"` // by a deadline or a cancellation
	Waits        waitReport        `json:"waits"`
	Violations   uint64            `json:"violations"`
	First        *violation        `json:"firstViolation,omitempty"`

	start time.Time
}

type operationReport struct {
	Name     string `json:"name"`
	Attempts uint64 `json:"attempts"`
	Acquired uint64 `json:"acquired"`
}

// A waitReport is about the acquisitions that may wait. P50 and P99 are rounded
// up by an eighth at most.
type waitReport struct {
	P50 time.Duration `json:"p50Nanoseconds"`
	P99 time.Duration `json:"p99Nanoseconds"`
	Max time.Duration `json:"maxNanoseconds"`
}

func (s *supervisor) report(dir string, fs file.System) *report {
	p := &report{
		Directory: dir, FileSystem: fs, Seed: s.seed,
		Processes: s.processes, Goroutines: s.goroutines, Peers: s.peers(),
		Seconds: s.elapsed.Seconds(), Kills: s.kills, First: s.first, start: s.start,
	}
	for _, name := range operationNames {
		p.Operations = append(p.Operations, operationReport{Name: name})
	}
	if p.Peers > 0 {
		p.Operations = append(p.Operations, operationReport{Name: "python"})
	}
	var waits [worker.WaitBuckets]uint64
	for at, t := range s.crew.Board.Tallies() {
		for op := range worker.Operations {
			row := &p.Operations[op]
			if at.Worker >= s.processes {
				row = &p.Operations[worker.Operations]
			}
			row.Attempts += t.Attempts[op].Load()
			row.Acquired += t.Acquired[op].Load()
			p.Acquisitions += t.Acquired[op].Load()
		}
		for i := range waits {
			waits[i] += t.Waits[i].Load()
		}
		p.Waits.Max = max(p.Waits.Max, time.Duration(t.Longest.Load()))
		p.Ended += t.Ended.Load()
		p.Violations += t.Violations.Load()
	}
	p.Waits.P50 = min(quantile(&waits, 0.5), p.Waits.Max)
	p.Waits.P99 = min(quantile(&waits, 0.99), p.Waits.Max)
	if s.first != nil {
		p.Violations = max(p.Violations, 1)
	}
	return p
}

// quantile returns the wait that the part q of all waits does not exceed.
func quantile(waits *[worker.WaitBuckets]uint64, q float64) time.Duration {
	var total, sum uint64
	for _, n := range waits {
		total += n
	}
	for i, n := range waits {
		if sum += n; float64(sum) >= q*float64(total) && sum > 0 {
			return worker.WaitOf(i)
		}
	}
	return 0
}

func (p *report) print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "operation\tattempts\tacquired\t")
	for _, o := range p.Operations {
		fmt.Fprintf(w, "%s\t%d\t%d\t\n", o.Name, o.Attempts, o.Acquired)
	}
	_ = w.Flush()
	processes := fmt.Sprintf("%d × %d goroutines", p.Processes, p.Goroutines)
	if p.Peers > 0 {
		processes += fmt.Sprintf(", %d of Python", p.Peers)
	}
	fmt.Fprintln(out)
	w = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range [][2]any{
		{"directory", fmt.Sprintf("%s (%s)", p.Directory, p.FileSystem)},
		{"processes", processes},
		{"seed", p.Seed},
		{"time", time.Duration(p.Seconds * float64(time.Second)).Round(100 * time.Millisecond)},
		{"acquisitions", fmt.Sprintf("%d (%.0f/s)", p.Acquisitions, float64(p.Acquisitions)/p.Seconds)},
		{"waits ended", fmt.Sprintf("%d (by deadline or cancellation)", p.Ended)},
		{"waits", fmt.Sprintf("p50 %v, p99 %v, max %v",
			cli.Rounded(p.Waits.P50), cli.Rounded(p.Waits.P99), cli.Rounded(p.Waits.Max))},
		{"kills", p.Kills},
		{"violations", p.Violations},
	} {
		fmt.Fprintf(w, "%s\t%v\n", row[0], row[1])
	}
	_ = w.Flush()
	p.printEvidence(out)
}

// printEvidence prints times relative to the start of the run.
func (p *report) printEvidence(out io.Writer) {
	v := p.First
	if v == nil {
		if p.Violations > 0 {
			fmt.Fprintln(out,
				"\nThe processes that have noticed the violation were killed before they could tell more.")
		}
		return
	}
	fmt.Fprintf(out, "\nviolation: %s\n", v.What)
	for _, h := range v.Holds {
		mode := "to write"
		if h.Mode == worker.Read {
			mode = "to read"
		}
		until := "and has not released it"
		if !h.Until.IsZero() {
			until = fmt.Sprintf("until %.6fs", h.Until.Sub(p.start).Seconds())
		}
		fmt.Fprintf(out, "  process %d, goroutine %d: %s, since %.6fs, %s; file %d\n",
			h.PID, h.Goroutine, mode, h.Since.Sub(p.start).Seconds(), until, h.Inode)
	}
	if v.Dump != "" {
		fmt.Fprintf(out, "\n%s\n", v.Dump)
	}
}
