package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// The manual pages are those that the help texts make. With -update they become so.
func TestManual(t *testing.T) {
	dir := t.TempDir()
	if *update {
		dir = "man"
		must(t, os.RemoveAll(dir))
		must(t, os.Mkdir(dir, 0o777))
	}
	must(t, writeManual(newRootCommand(), dir))
	made, err := filepath.Glob(filepath.Join(dir, "*"))
	must(t, err)
	kept, err := filepath.Glob("man/*")
	must(t, err)
	if len(made) == 0 || len(made) != len(kept) {
		t.Errorf("there are %d pages, want %d", len(kept), len(made))
	}
	for _, path := range made {
		want, err := os.ReadFile(path)
		must(t, err)
		got, err := os.ReadFile(filepath.Join("man", filepath.Base(path)))
		if err != nil || string(got) != string(want) {
			t.Errorf("man/%s is out of date: run go generate", filepath.Base(path))
		}
	}
}

// writeManual leaves out the date and the version, so that the pages change only with the texts.
func writeManual(root *cobra.Command, dir string) error {
	root.DisableAutoGenTag = true
	root.InitDefaultCompletionCmd()
	return doc.GenManTree(root, &doc.GenManHeader{Title: "FASTENERS", Section: "1", Source: "fasteners", Manual: "User Commands"}, dir)
}
