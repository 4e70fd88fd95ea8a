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

// A result is what came of a measure: a table with a row for each entrant, and what the
// row of this library was to reach.
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

// newResult enters all who can take part, each with so many processes.
func (b *bench) newResult(takes func(*contender) bool, processes int) *result {
	r := &result{}
	for _, c := range b.contenders {
		if takes(c) {
			r.entrants = append(r.entrants, b.enter(c, processes))
		}
	}
	return r
}

func (r *result) leave() {
	for _, e := range r.entrants {
		e.leave()
	}
}

// named returns the entrant of that name, or one without values.
func (r *result) named(name string) *entrant {
	for _, e := range r.entrants {
		if e.name == name {
			return e
		}
	}
	return &entrant{contender: &contender{name: name}}
}

// bestGofrs picks the way to use gofrs/flock that makes a target harder to reach: best is
// min or max.
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

// ratioColumn compares all with one of them.
func (r *result) ratioColumn(v value, to *entrant) {
	r.column("ratio to "+to.name, func(e *entrant) float64 { return v(e) / v(to) }, times)
}

// require compares this library with a limit.
func (r *result) require(what string, v value, op string, limit float64, format func(float64) string) {
	us := v(r.named(oursName))
	r.targets = append(r.targets, target{what, format(us), op + " " + brief(format(limit)), holds(us, op, limit)})
}

// compare compares this library with so many times what another contender has.
func (r *result) compare(what string, v value, op string, factor float64, to *entrant, format func(float64) string) {
	us, them := v(r.named(oursName)), v(to)
	r.targets = append(r.targets, target{
		what:     what,
		measured: fmt.Sprintf("%s, %s", format(us), times(us/them)),
		limit:    fmt.Sprintf("%s %v × %s (%s)", op, factor, to.name, format(them)),
		met:      holds(us, op, factor*them),
	})
}

// holds is false for what was not measured.
func holds(v float64, op string, limit float64) bool {
	if op == "≤" {
		return v <= limit
	}
	return v >= limit
}

// report writes a run as Markdown.
func report(b *bench, results map[string]*result, pictures []picture) string {
	var s strings.Builder
	fmt.Fprintf(&s, "# Locks between processes, measured\n\n%s\n\n## Targets\n\n", b.circumstances())
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
	fmt.Fprintf(s, "| %s |\n|---|%s\n", strings.Join(head, " | "), strings.Repeat("---:|", len(head)-1))
	for _, row := range rows {
		for i := range row {
			row[i] = strings.ReplaceAll(row[i], "|", `\|`)
		}
		fmt.Fprintf(s, "| %s |\n", strings.Join(row, " | "))
	}
}

// circumstances tells where, how and with whom the run was.
func (b *bench) circumstances() string {
	var s strings.Builder
	var u unix.Utsname
	_ = unix.Uname(&u)
	fileSystem, _ := exec.Command("stat", "-f", "-c", "%T", b.dir).Output()
	fmt.Fprintf(&s, "%s, %d CPUs, Linux %s, %s, lock files on %s. %s, load average before the run %s.\n\n",
		rest("/proc/cpuinfo", "model name\t: "), runtime.NumCPU(), unix.ByteSliceToString(u.Release[:]), runtime.Version(),
		strings.TrimSpace(string(fileSystem)), time.Now().Format(time.DateOnly), b.load)
	fmt.Fprintf(&s, "Medians of %s of %s, of %d hand-offs, and where goroutines wait, of %s. In a round all have a turn.\n\n",
		plural(b.rounds, "round"), length(b.slice), b.handoffs, plural(b.waits, "round"))

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

// rest returns what follows prefix in the line of a file.
func rest(file, prefix string) string {
	b, _ := os.ReadFile(file)
	_, rest, _ := strings.Cut(string(b), prefix)
	line, _, _ := strings.Cut(rest, "\n")
	return line
}

// Ways to write a number, or that there is none.

func duration(ns float64) string {
	units := []string{" ns", " µs", " ms", " s"}
	for len(units) > 1 && ns >= 999.5 {
		ns, units = ns/1000, units[1:]
	}
	return write(ns, units[0])
}

func perSecond(v float64) string { return write(v/1000, " k/s") }
func times(v float64) string     { return write(v, " ×") }
func megabytes(v float64) string { return write(v/1e6, " MB") }

func percent(v float64) string {
	if v > 0 && v < 0.0001 {
		return "< 0.01 %"
	}
	return write(100*v, " %")
}

// write has three digits, where they mean something.
func write(v float64, unit string) string {
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

// exactly rounds nothing that could matter to a limit.
func exactly(v float64) string {
	if math.IsNaN(v) {
		return "–"
	}
	return fmt.Sprintf("%.4f", v)
}

// length writes what was chosen, not measured.
func length(d time.Duration) string { return brief(duration(float64(d))) }

// brief drops zeros behind the point.
func brief(s string) string {
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
