//go:build linux

package main

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A result is the outcome of a measure: a table with a row for each entrant, and the targets for the row of
// this library.
type result struct {
	title, text string
	entrants    []*entrant
	columns     []column
	targets     []target
}

type column struct {
	head string
	cell func(*entrant) string
}

type target struct {
	what, measured, limit string
	met                   bool
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

// bestGofrs returns the one of the two uses of gofrs/flock that is better: best is math.Min or math.Max.
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

// require adds a target that is a limit.
func (r *result) require(what string, v value, op string, limit float64, format func(float64) string) {
	us := v(r.named(oursName))
	r.targets = append(r.targets, target{what, format(us), op + " " + trimZeros(format(limit)), meets(us, op, limit)})
}

// compare adds a target that is a multiple of the value of another contender.
func (r *result) compare(what string, v value, op string, factor float64, to *entrant, format func(float64) string) {
	us, them := v(r.named(oursName)), v(to)
	r.targets = append(r.targets, target{
		what:     what,
		measured: fmt.Sprintf("%s, %s", format(us), times(us/them)),
		limit:    fmt.Sprintf("%s %v × %s (%s)", op, factor, to.name, format(them)),
		met:      meets(us, op, factor*them),
	})
}

// meets returns false for NaN, which stands for a value that was not measured.
func meets(v float64, op string, limit float64) bool {
	if op == "≤" {
		return v <= limit
	}
	return v >= limit
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

// targetTable returns the targets of a run as Markdown. They are for those who maintain this library.
func targetTable(results map[string]*result) string {
	var s strings.Builder
	s.WriteString("# Targets of the benchmark\n\nOf the run that [the report](report.md) shows.\n\n")
	var rows [][]string
	for _, m := range measures {
		r := results[m.name]
		if r == nil {
			continue
		}
		for _, t := range r.targets {
			what, met := r.title, "met"
			if t.what != "" {
				what += ": " + t.what
			}
			if !t.met {
				met = "**missed**"
			}
			rows = append(rows, []string{what, t.measured, t.limit, met})
		}
	}
	markdown(&s, []string{"", oursName, "target", ""}, rows)
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
	fmt.Fprintf(s, "| %s |\n|---|%s\n", strings.Join(head, " | "), strings.Repeat("---:|", len(head)-1))
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
	fmt.Fprintf(&s, "%s, %d CPUs, Linux %s, %s, lock files on %s. %s, load average before the run %s.\n\n",
		lineAfter("/proc/cpuinfo", "model name\t: "), runtime.NumCPU(), unix.ByteSliceToString(u.Release[:]), runtime.Version(),
		strings.TrimSpace(string(fileSystem)), time.Now().Format(time.DateOnly), b.load)
	fmt.Fprintf(&s, "Medians of %s of %s, of %d hand-offs, and of %s where goroutines wait. Each round measures all contenders.\n\n",
		plural(b.rounds, "round"), plainDuration(b.slice), b.handoffs, plural(b.waits, "round"))

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
	fmt.Fprintf(&s, "With %s.", strings.Join(slices.Compact(with), ", "))
	for _, a := range b.absent {
		fmt.Fprintf(&s, " Without %s.", a)
	}
	return s.String()
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

// fourDecimals is for limits that three digits could seem to meet.
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
