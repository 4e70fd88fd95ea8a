//go:build linux

package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// pages changes to the root of the repository, and returns the text of all pages for users and
// maintainers, by path.
func pages(t *testing.T) map[string]string {
	t.Helper()
	t.Chdir("..")
	pages := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "bench/*.md", "bench/results/*.md",
		"etcd/*.md", "postgres/*.md"} {
		paths, err := filepath.Glob(filepath.FromSlash(pattern))
		must(t, err)
		for _, path := range paths {
			text, err := os.ReadFile(path)
			must(t, err)
			pages[filepath.ToSlash(path)] = string(text)
		}
	}
	if len(pages) < 8 {
		t.Fatalf("%d pages", len(pages))
	}
	return pages
}

// Every snippet of Go on a page is part of a file that is compiled, and whose tests run it.
func TestSnippets(t *testing.T) {
	programs := map[string][]string{
		"README.md":         {"example_test.go", "example_unix_test.go"},
		"docs/faq.md":       {"docs/faq_test.go"},
		"docs/migrating.md": {"docs/migrating_test.go"},
	}
	for page, text := range pages(t) {
		if dir, _, _ := strings.Cut(page, "/"); dir == "etcd" || dir == "postgres" {
			continue // modules of their own, which have examples
		}
		program := ""
		for _, path := range programs[page] {
			text, err := os.ReadFile(filepath.FromSlash(path))
			must(t, err)
			program += string(text)
		}
		snippets := strings.Split(text, "```go\n")[1:]
		if (len(snippets) > 0) != (program != "") {
			t.Errorf("%s has %d snippets, and %d files with its code", page, len(snippets), len(programs[page]))
		}
		for _, s := range snippets {
			s, _, _ = strings.Cut(s, "```")
			if !strings.Contains(trimLines(program), trimLines(strings.TrimSpace(s))) {
				t.Errorf("%s: this is not part of %v:\n%s", page, programs[page], s)
			}
		}
	}
}

func trimLines(s string) string {
	var lines []string
	for line := range strings.Lines(s) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return strings.Join(lines, "\n")
}

var (
	code    = regexp.MustCompile("(?s)```.*?```|`[^`\n]*`")
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
)

// Every link within the repository leads to a file, and to a heading of it. Links to other sites
// are not followed.
func TestLinks(t *testing.T) {
	pages := pages(t)
	checked := 0
	for page, text := range pages {
		for _, m := range link.FindAllStringSubmatch(code.ReplaceAllString(text, ""), -1) {
			if strings.HasPrefix(m[1], "https://") {
				continue
			}
			checked++
			path, anchor, _ := strings.Cut(m[1], "#")
			to := page
			if path != "" {
				to = filepath.ToSlash(filepath.Join(filepath.Dir(page), path))
			}
			if _, err := os.Stat(filepath.FromSlash(to)); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
			}
			if anchor != "" && !hasAnchor(pages[to], anchor) {
				t.Errorf("%s links to %s, which has no such heading", page, m[1])
			}
		}
	}
	if checked < 50 {
		t.Errorf("%d links", checked)
	}
}

// hasAnchor reports whether a heading of the page has that anchor, which GitHub makes of its text.
func hasAnchor(text, anchor string) bool {
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		made := strings.ReplaceAll(strings.ToLower(m[1]), " ", "-")
		if regexp.MustCompile(`[^\p{L}\p{N}_-]`).ReplaceAllString(made, "") == anchor {
			return true
		}
	}
	return false
}

// The table of promises in docs/architecture.md names tests that exist, in the files that it says,
// and files that exist.
func TestPromises(t *testing.T) {
	_, table, _ := strings.Cut(pages(t)["docs/architecture.md"], "\n## Where each promise is kept\n")
	tests := regexp.MustCompile("((?:`Test\\w+`(?:, )?)+) in `([^`]+)`")
	files := regexp.MustCompile("`([\\w/.]+\\.go|internal/\\w+)`")
	found := 0
	for line := range strings.Lines(table) {
		for _, m := range tests.FindAllStringSubmatch(line, -1) {
			source, err := os.ReadFile(filepath.FromSlash(m[2]))
			must(t, err)
			for name := range strings.SplitSeq(m[1], ", ") {
				found++
				function := fmt.Sprintf("\nfunc %s(t *testing.T) {", strings.Trim(name, "`"))
				if !strings.Contains(string(source), function) {
					t.Errorf("%s has no %s", m[2], name)
				}
			}
		}
		for _, m := range files.FindAllStringSubmatch(line, -1) {
			if _, err := os.Stat(filepath.FromSlash(m[1])); err != nil {
				t.Error(err)
			}
		}
		if strings.Count(line, "`Test") != strings.Count(strings.Join(tests.FindAllString(line, -1), ""), "`Test") {
			t.Errorf("a test has no file: %s", line)
		}
	}
	if found < 20 {
		t.Errorf("%d tests", found)
	}
}

// What docs/architecture.md names is there: files, packages, and methods of the library.
func TestArchitecture(t *testing.T) {
	text := pages(t)["docs/architecture.md"]
	drawing := strings.Split(text, "```")[1]
	paths := regexp.MustCompile(`[\w/]+_\*\.go|[\w/]+\.go|internal/\w+`).FindAllString(drawing, -1)
	for _, m := range regexp.MustCompile("`([\\w/]+(?:\\.go)?)`").FindAllStringSubmatch(text, -1) {
		if strings.Contains(m[1], "/") && !strings.HasPrefix(m[1], "/") {
			paths = append(paths, m[1])
		}
	}
	for _, path := range paths {
		if found, err := filepath.Glob(filepath.FromSlash(path)); err != nil || len(found) == 0 {
			t.Errorf("there is no %s", path)
		}
	}

	source := ""
	for _, pattern := range []string{"*.go", "internal/*/*.go"} {
		files, err := filepath.Glob(filepath.FromSlash(pattern))
		must(t, err)
		for _, path := range files {
			if !strings.HasSuffix(path, "_test.go") {
				text, err := os.ReadFile(path)
				must(t, err)
				source += string(text)
			}
		}
	}
	methods := regexp.MustCompile("`(\\w+)\\.(\\w+)`").FindAllStringSubmatch(text, -1)
	for _, m := range methods {
		if m[2] == "go" {
			continue // a file of the root, in the table of promises
		}
		if !regexp.MustCompile(`func \(\w+ \*?` + m[1] + `\) ` + m[2] + `\(`).MatchString(source) {
			t.Errorf("there is no method %s.%s", m[1], m[2])
		}
	}
	if len(paths) < 30 || len(methods) < 10 {
		t.Errorf("%d paths, %d methods", len(paths), len(methods))
	}
}
