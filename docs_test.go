//go:build unix || windows

package fasteners_test

import (
	"os"
	"strings"
	"testing"
)

// Every line of Go in the README is part of an example, which is compiled and run.
func TestReadmeShowsExamples(t *testing.T) {
	examples, err := os.ReadFile("example_test.go")
	must(t, err)
	readme, err := os.ReadFile("README.md")
	must(t, err)
	checkSnippets(t, string(readme), string(examples))
}

// checkSnippets checks that program contains each Go snippet of a Markdown text, with any
// indentation.
func checkSnippets(t *testing.T, markdown, program string) {
	t.Helper()
	program = trimLines(program)
	snippets := strings.Split(markdown, "```go\n")[1:]
	if len(snippets) == 0 {
		t.Error("there are no snippets")
	}
	for _, s := range snippets {
		s, _, _ = strings.Cut(s, "```")
		if !strings.Contains(program, trimLines(strings.TrimSpace(s))) {
			t.Errorf("this is not part of an example:\n%s", s)
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
