//go:build linux

package main

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A result is the outcome of a measure: a table with a row for each entrant.
type result struct {
	title, text string
	entrants    []*entrant
	columns     []column
}

type column struct {
	head string
	cell func(*entrant) string
}

// newResult starts processes of each contender that takes part.
func (b *bench) newResult(eligible func(*contender) bool, processes int) *result {
	r := &result{}
	for _, c := range b.contenders {
		if eligible(c) {
			r.entrants = append(r.entrants, b.startEntrant(c, processes))
		}
	}
	return r
}

func (r *result) stop() {
	for _, e := range r.entrants {
		e.stop()
	}
}

// named returns the entrant of that name, or one without results.
func (r *result) named(name string) *entrant {
	for _, e := range r.entrants {
		if e.name == name {
			return e
		}
	}
	return &entrant{contender: &contender{name: name}}
}

// bestGofrs returns the better of the two uses of gofrs/flock: best is math.Min or math.Max.
func (r *result) bestGofrs(v value, best func(a, b float64) float64) *entrant {
	a, b := r.named(gofrsLockName), r.named(gofrsPollName)
	if best(v(a), v(b)) == v(b) {
		return b
	}
	return a
}

func (r *result) column(head string, v value, format func(float64) string) {
	r.columns = append(r.columns, column{head, func(e *entrant) string { return format(v(e)) }})
}

// ratioColumn compares all entrants with one of them.
func (r *result) ratioColumn(v value, to *entrant) {
	r.column("ratio to "+to.name, func(e *entrant) float64 { return v(e) / v(to) }, times)
}

// report returns the results of a run as Markdown.
func report(b *bench, results map[string]*result, pictures []picture) string {
	var s strings.Builder
	fmt.Fprintf(&s, "# Benchmark of cross-process locks\n\n%s\n", b.environment())
	for _, p := range pictures {
		fmt.Fprintf(&s, "\n![%s](%s)\n", p.title, p.file)
	}
	for _, m := range measures {
		if r := results[m.name]; r != nil {
			r.write(&s)
		}
	}
	return s.String()
}

func (r *result) write(s *strings.Builder) {
	fmt.Fprintf(s, "\n## %s\n\n", r.title)
	if r.text != "" {
		fmt.Fprintf(s, "%s\n\n", r.text)
	}
	head := []string{""}
	for _, c := range r.columns {
		head = append(head, c.head)
	}
	var rows [][]string
	for _, e := range r.entrants {
		row := []string{e.name}
		if e.err != nil {
			row = append(row, e.err.Error())
		}
		for len(row) < len(head) {
			if e.err == nil {
				row = append(row, r.columns[len(row)-1].cell(e))
			} else {
				row = append(row, "")
			}
		}
		rows = append(rows, row)
	}
	markdown(s, head, rows)
}

func markdown(s *strings.Builder, head []string, rows [][]string) {
	rule := "|---|" + strings.Repeat("---:|", len(head)-1)
	fmt.Fprintf(s, "| %s |\n%s\n", strings.Join(head, " | "), rule)
	for _, row := range rows {
		for i := range row {
			row[i] = strings.ReplaceAll(row[i], "|", `\|`)
		}
		fmt.Fprintf(s, "| %s |\n", strings.Join(row, " | "))
	}
}

// environment describes the machine, the plan and the versions.
func (b *bench) environment() string {
	var s strings.Builder
	var u unix.Utsname
	_ = unix.Uname(&u)
	fileSystem, _ := exec.Command("stat", "-f", "-c", "%T", b.dir).Output()
	fmt.Fprintf(&s, "%s, %d CPUs, Linux %s, %s, lock files on %s. ",
		lineAfter("/proc/cpuinfo", "model name\t: "), runtime.NumCPU(),
		unix.ByteSliceToString(u.Release[:]), runtime.Version(), strings.TrimSpace(string(fileSystem)))
	fmt.Fprintf(&s, "%s, load average before the run %s.\n\n",
		time.Now().Format(time.DateOnly), b.load)
	fmt.Fprintf(&s, "Medians of %s of %s, of %d hand-offs, and of %s where goroutines wait. ",
		plural(b.rounds, "round"), plainDuration(b.slice), b.handoffs, plural(b.waits, "round"))
	s.WriteString("Each round measures all contenders.\n\n")

	versions := map[string]string{}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			versions[m.Path] = m.Version
		}
	}
	var with []string
	for _, c := range b.contenders {
		if c.kind == pythonLibrary {
			with = append(with, c.name+" "+b.versions[c.module])
		} else if c.module != "" {
			with = append(with, strings.TrimPrefix(c.module, "github.com/")+" "+versions[c.module])
		}
	}
	fmt.Fprintf(&s, "fasteners at commit %s, with %s.",
		b.commit, strings.Join(slices.Compact(with), ", "))
	for _, a := range b.absent {
		fmt.Fprintf(&s, " Without %s.", a)
	}
	return s.String()
}

// measuredCommit returns the commit that this program was compiled from, with the mark
// "-dirty" if a file differs from it. It asks git, because "go run" does not stamp the commit
// into programs.
func measuredCommit() string {
	_, source, _, _ := runtime.Caller(0)
	git := exec.Command("git", "describe", "--always", "--exclude=*", "--dirty")
	git.Dir = filepath.Dir(source)
	commit, err := git.Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(commit))
}

// lineAfter returns what follows prefix, in the first line of the file that has it.
func lineAfter(file, prefix string) string {
	b, _ := os.ReadFile(file)
	_, lineAfter, _ := strings.Cut(string(b), prefix)
	line, _, _ := strings.Cut(lineAfter, "\n")
	return line
}

// The following functions format a number, or NaN as a dash.

func duration(ns float64) string {
	units := []string{" ns", " µs", " ms", " s"}
	for len(units) > 1 && ns >= 999.5 {
		ns, units = ns/1000, units[1:]
	}
	return threeDigits(ns, units[0])
}

func perSecond(v float64) string { return threeDigits(v/1000, " k/s") }
func times(v float64) string     { return threeDigits(v, " ×") }
func megabytes(v float64) string { return threeDigits(v/1e6, " MB") }

func percent(v float64) string {
	if v > 0 && v < 0.0001 {
		return "< 0.01 %"
	}
	return threeDigits(100*v, " %")
}

// threeDigits formats v with three significant digits.
func threeDigits(v float64, unit string) string {
	switch {
	case math.IsNaN(v):
		return "–"
	case math.IsInf(v, 0):
		return "not in time"
	case v >= 99.95 || v == 0:
		return fmt.Sprintf("%.0f%s", v, unit)
	case v >= 9.995:
		return fmt.Sprintf("%.1f%s", v, unit)
	}
	return fmt.Sprintf("%.2f%s", v, unit)
}

// fourDecimals is for counts that are whole but for what rarely happens.
func fourDecimals(v float64) string {
	if math.IsNaN(v) {
		return "–"
	}
	return fmt.Sprintf("%.4f", v)
}

// plainDuration formats a duration that was chosen, not measured.
func plainDuration(d time.Duration) string { return trimZeros(duration(float64(d))) }

// trimZeros drops trailing zeros of the fraction.
func trimZeros(s string) string {
	number, unit, _ := strings.Cut(s, " ")
	if strings.Contains(number, ".") {
		number = strings.TrimRight(strings.TrimRight(number, "0"), ".")
	}
	return strings.TrimSpace(number + " " + unit)
}

func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return number(float64(n)) + " " + what
}

func number(v float64) string {
	if math.IsNaN(v) {
		return "–"
	}
	if v >= 1000 {
		return fmt.Sprintf("%d,%03d", int(v)/1000, int(v)%1000)
	}
	return fmt.Sprint(v)
}
