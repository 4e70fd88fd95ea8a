//go:build linux

package docs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/alexflint/go-filemutex"
	"github.com/rogpeppe/go-internal/lockedfile"
)

// comparisonFile has the table. The README has a part of it, below the heading "## Comparison".
const comparisonFile = "comparison.md"

// A cell of the table, to be determined by running the tool.
type cell struct {
	testing.TB
	tool *tool
	path string // of a lock file that does not exist yet
	want string // what the table says: what should happen then is waited for without a limit
}

// rows are those of the table, in their order. Each returns what the table should say.
var rows = []struct {
	name  string
	found func(*cell) string
}{
	{"Wait bounded by", (*cell).bound},
	{"Release wakes a waiter, without polling", (*cell).wakes},
	{"Goroutines exclude each other through one value", (*cell).goroutines},
	{"Readers and a writer", (*cell).readers},
	{"Waiting writer keeps new readers out", (*cell).writerWaits},
	{"Wait that times out tells who holds the lock", (*cell).explains},
	{"Removal of a held lock file is reported", (*cell).removal},
	{"Waiter moves to a replaced lock file", (*cell).replacement},
	{"Excludes flock(1)", (*cell).excludesFlock},
	{"Excludes Python's fasteners", (*cell).excludesPython},
	{"Killed holder releases the lock", (*cell).killed},
	{"Child process does not keep the lock", (*cell).child},
	{"Mode of a new lock file, before umask", (*cell).mode},
	{"Windows", nil},
}

// quotations are for cells that cannot be run here.
var quotations = map[string]map[string]quotation{
	"Windows": {
		oursName:       {"tested under Wine", "Runs the tests as Windows programs, under Debian 12's Wine.", "", ".ci/wine"},
		"gofrs/flock":  {"yes", "on some the MS Windows `LockFileEX` docs", "github.com/gofrs/flock", "flock_windows.go"},
		lockedfileName: {"yes", "LockFileEx still requires an OVERLAPPED structure", "github.com/rogpeppe/go-internal", "lockedfile/internal/filelock/filelock_windows.go"},
		filemutexName:  {"yes", "On windows it uses the LockFileEx and UnlockFileEx system calls", "github.com/alexflint/go-filemutex", "README.md"},
		jujuName:       {"yes", "the Windows implementation uses a named mutex", "github.com/juju/mutex/v2", "README.md"},
		flockName:      {"no", "util-linux is a random collection of Linux utilities", "", "https://github.com/util-linux/util-linux/blob/master/README"},
		pythonName:     {"yes", "msvc _locking on Windows", "", "https://pypi.org/project/fasteners/"},
	},
	"Readers and a writer": {
		jujuName: {"no", "only one mutex for that name can be acquired at the same time", "github.com/juju/mutex/v2", "README.md"},
	},
}

// A quotation is from a file of a Go module, or of this one, or from a page.
type quotation struct{ cell, text, module, source string }

// TestComparison compares each cell of the table with what the tool does, or with a quotation. If
// the table is wrong, it fails, or hangs where the table says that a process goes on.
func TestComparison(t *testing.T) {
	text, table := readComparison(t)
	head := []string{""}
	for _, tl := range tools {
		head = append(head, tl.name)
	}
	if !reflect.DeepEqual(table[0], head) {
		t.Fatalf("columns are %q, want %q", table[0], head)
	}
	table = table[1:]
	if len(table) != len(rows) {
		t.Fatalf("%d rows, want %d", len(table), len(rows))
	}
	for i, r := range rows {
		if table[i][0] != r.name {
			t.Fatalf("row %d is %q, want %q", i, table[i][0], r.name)
		}
		for j, tl := range tools {
			t.Run(r.name+"/"+tl.name, func(t *testing.T) {
				want := table[i][j+1]
				found := ""
				if q, ok := quotations[r.name][tl.name]; ok {
					found = q.check(t)
				} else {
					tl.require(t)
					found = r.found(&cell{t, tl, filepath.Join(t.TempDir(), "juju-lock"), want})
				}
				if found != want {
					t.Errorf("the table says %q, but it is %q", want, found)
				}
			})
		}
	}

	info, ok := debug.ReadBuildInfo()
	if !ok {
		t.Fatal("no build information")
	}
	for _, m := range info.Deps {
		for _, tl := range tools {
			if version, _, _ := strings.Cut(m.Version, "-"); tl.module == m.Path && !strings.Contains(text, version) {
				t.Errorf("%s does not name the version of %s, %s", comparisonFile, m.Path, version)
			}
		}
	}
}

// TestComparisonInReadme compares each cell of the table in the README with the same one of the
// whole table.
func TestComparisonInReadme(t *testing.T) {
	_, whole := readComparison(t)
	readme, err := os.ReadFile("../README.md")
	must(t, err)
	_, section, _ := strings.Cut(string(readme), "\n## Comparison\n")
	section, _, _ = strings.Cut(section, "\n## ")
	part := readTable(t, section)
	if len(part) < 2 {
		t.Fatal("there is no table")
	}
	for _, row := range part {
		i := slices.IndexFunc(whole, func(r []string) bool { return r[0] == row[0] })
		if i < 0 {
			t.Errorf("there is no row %q", row[0])
			continue
		}
		for j, cell := range row {
			k := slices.Index(whole[0], part[0][j])
			if k < 0 || cell != whole[i][k] {
				t.Errorf("%s, %s: the README says %q", row[0], part[0][j], cell)
			}
		}
	}
}

var markdownLink = regexp.MustCompile(`\[([^]]+)\]\([^)]*\)`)

// readComparison returns the page and its table.
func readComparison(t *testing.T) (text string, table [][]string) {
	t.Helper()
	page, err := os.ReadFile(comparisonFile)
	must(t, err)
	table = readTable(t, string(page))
	if len(table) == 0 || len(table[0]) != 1+len(tools) {
		t.Fatalf("%s has no table, or another number of columns than %d", comparisonFile, 1+len(tools))
	}
	return string(page), table
}

// readTable returns the cells of a table, without links and bold type.
func readTable(t *testing.T, text string) (table [][]string) {
	t.Helper()
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|--") {
			continue
		}
		line = strings.ReplaceAll(markdownLink.ReplaceAllString(line, "$1"), "**", "")
		cells := strings.Split(strings.TrimSuffix(strings.TrimPrefix(line, "|"), "|"), "|")
		for i, c := range cells {
			cells[i] = strings.TrimSpace(c)
		}
		table = append(table, cells)
		if len(cells) != len(table[0]) {
			t.Fatalf("a row has %d cells: %s", len(cells), line)
		}
	}
	return table
}

// check looks for the quotation in the file that it is from. A page is not fetched.
func (q quotation) check(t *testing.T) string {
	t.Helper()
	if strings.HasPrefix(q.source, "https://") {
		return q.cell
	}
	dir := ".."
	if q.module != "" {
		out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", q.module).Output()
		if err != nil {
			skipOrFail(t, "go list")
		}
		dir = strings.TrimSpace(string(out))
	}
	b, err := os.ReadFile(filepath.Join(dir, q.source))
	must(t, err)
	if !strings.Contains(strings.Join(strings.Fields(string(b)), " "), q.text) {
		t.Errorf("%s does not say %q", q.source, q.text)
	}
	return q.cell
}

func (tl *tool) require(t testing.TB) {
	t.Helper()
	if tl.missing == nil {
		return
	}
	if what := tl.missing(); what != "" {
		skipOrFail(t, what)
	}
}

func toolNamed(name string) *tool {
	for _, tl := range tools {
		if tl.name == name {
			return tl
		}
	}
	panic(name)
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

func (c *cell) start(do string) *lockUser { c.Helper(); return startUser(c, c.tool, c.path, do) }

func (c *cell) holder() *lockUser {
	c.Helper()
	u := c.start("lock")
	u.mustSay("held")
	return u
}

// withEither says for which of the two calls that wait something is true.
func (c *cell) withEither(lock, bounded bool) string {
	switch {
	case c.tool.bound == "" || lock == bounded:
		return yesNo(lock)
	case lock:
		return c.tool.lock + " only"
	}
	return c.tool.bounded + " only"
}

// bound lets a process give up waiting, and looks how another one waits.
func (c *cell) bound() string {
	if c.tool.bound == "" {
		for _, typ := range []reflect.Type{
			reflect.TypeFor[*lockedfile.Mutex](), reflect.TypeFor[*filemutex.FileMutex](),
		} {
			for i := range typ.NumMethod() {
				if m := typ.Method(i); m.Type.NumIn() > 1 { // the receiver is the first
					c.Errorf("%v.%s could take a context or a timeout", typ, m.Name)
				}
			}
		}
		return "no"
	}
	holder := c.holder()
	c.start("give up").mustSay("gave up")
	leaves := ", leaves a waiting thread"
	waits := waitsInKernel(c, c.path)
	for strings.HasSuffix(c.want, leaves) && !waits { // it may be late
		waits = waitsInKernel(c, c.path)
	}
	if waits {
		return c.tool.bound + leaves
	}
	waiter := c.start("bounded")
	how := ", by polling"
	if waiter.waits(c.path) {
		how = ", in the kernel"
	}
	holder.mustRelease()
	waiter.mustSay("held")
	waiter.mustRelease()
	return c.tool.bound + how
}

// explains looks for the PID of the holder in what a process says that has given up.
func (c *cell) explains() string {
	if c.tool.bound == "" {
		return "–"
	}
	holder := c.holder()
	giver := c.start("explain")
	for line := range giver.lines {
		if text, ok := strings.CutPrefix(line, "error: "); ok {
			holder.mustRelease()
			return yesNo(strings.Contains(text, strconv.Itoa(holder.cmd.Process.Pid)))
		}
	}
	c.Fatal("the process has not given up")
	return ""
}

func (c *cell) wakes() string {
	byRelease := func(do string) bool {
		holder := c.holder()
		waiter := c.start(do)
		wakes := waiter.waits(c.path)
		holder.mustRelease()
		waiter.mustSay("held")
		waiter.mustRelease()
		return wakes
	}
	return c.withEither(byRelease("lock"), c.tool.bound != "" && byRelease("bounded"))
}

func (c *cell) goroutines() string {
	if c.tool.noThreads {
		return "–"
	}
	u := c.start("twice")
	u.mustSay("held")
	if u.says("held twice", c.want == "no") {
		return "no"
	}
	_, _ = u.in.Write([]byte("\n"))
	u.mustSay("held twice")
	u.mustRelease()
	return "yes"
}

func (c *cell) readers() string {
	a, b := c.start("read"), c.start("read")
	a.mustSay("held")
	if !b.says("held", c.want != "no") {
		return "no"
	}
	w := c.start("lock")
	if w.says("held", false) {
		return "no"
	}
	a.mustRelease()
	b.mustRelease()
	w.mustSay("held")
	w.mustRelease()
	if c.tool.readers != "" {
		if _, ok := reflect.TypeFor[*lockedfile.Mutex]().MethodByName("RLock"); ok {
			return "yes"
		}
		return c.tool.readers
	}
	return "yes"
}

func (c *cell) writerWaits() string {
	if c.tool.noReaders {
		return "–"
	}
	first := c.start("read")
	first.mustSay("held")
	w := c.start("lock")
	w.waits(c.path)
	second := c.start("read")
	if second.says("held", c.want == "no") {
		return "no"
	}
	first.mustRelease()
	w.mustSay("held")
	w.mustRelease()
	second.mustSay("held")
	second.mustRelease()
	return "yes"
}

func (c *cell) removal() string {
	holder := c.holder()
	must(c, os.Remove(c.path))
	return yesNo(holder.release() != nil)
}

// replacement replaces the file while its holder goes on, and another process waits for it.
func (c *cell) replacement() string {
	moves := func(do, call string) bool {
		holder := c.holder()
		waiter := c.start(do)
		waiter.waits(c.path)
		must(c, os.WriteFile(c.path+".new", nil, 0o666))
		must(c, os.Rename(c.path+".new", c.path))
		moves := waiter.says("held", c.want == "yes" || c.want == call+" only")
		_ = holder.release() // it may report that
		if !moves {
			waiter.mustSay("held")
		}
		waiter.mustRelease()
		return moves
	}
	return c.withEither(moves("lock", c.tool.lock), c.tool.bound != "" && moves("bounded", c.tool.bounded))
}

// excludesFlock is about flock(2): without --fcntl, if there is that.
func (c *cell) excludesFlock() string {
	toolNamed(flockName).require(c)
	return c.excludes("flock", "-n", c.path, "true")
}

func (c *cell) excludesPython() string {
	python := toolNamed(pythonName)
	python.require(c)
	return c.excludes(python.argv(c.path, "try")...)
}

// excludes runs a command that tries to acquire the lock: it succeeds while nobody holds it, and
// has an exit status of 1 if it is excluded.
func (c *cell) excludes(argv ...string) string {
	holder := c.holder()
	err := exec.Command(argv[0], argv[1:]...).Run()
	holder.mustRelease()
	must(c, exec.Command(argv[0], argv[1:]...).Run())
	if exit, ok := err.(*exec.ExitError); err != nil && (!ok || exit.ExitCode() != 1) {
		c.Fatal(err)
	}
	return yesNo(err != nil)
}

// killed kills the holder and what it may have started, as the command of flock(1).
func (c *cell) killed() string {
	c.holder().killGroup()
	return yesNo(c.start("lock").says("held", c.want == "yes"))
}

func (c *cell) child() string {
	released := func(do string, expected bool) bool {
		holder := c.start(do)
		holder.mustSay("held")
		holder.kill()
		next := c.start("lock")
		released := next.says("held", expected)
		_ = holder.in.Close() // ends the child
		if !released {
			next.mustSay("held")
		}
		next.mustRelease()
		return released
	}
	if c.tool.name == flockName {
		switch {
		case released("child", c.want == "yes"):
			return "yes"
		case released("child without the lock", true):
			return "with `-o`"
		}
		return "no"
	}
	return yesNo(released("child", c.want == "yes"))
}

func (c *cell) mode() string {
	holder := c.holder()
	info, err := os.Stat(c.path)
	must(c, err)
	holder.mustRelease()
	return fmt.Sprintf("`%04o`", info.Mode().Perm())
}
