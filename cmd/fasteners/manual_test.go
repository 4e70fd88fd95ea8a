package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

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

// writeManual leaves out the date and the version, so that the pages change
// only with the texts.
func writeManual(root *cobra.Command, dir string) error {
	root.DisableAutoGenTag = true
	header := &doc.GenManHeader{
		Title: "FASTENERS", Section: "1", Date: &time.Time{}, Source: "fasteners", Manual: "User Commands",
	}
	if err := doc.GenManTree(root, header, dir); err != nil {
		return err
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return err
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err == nil {
			err = os.WriteFile(page, bytes.Replace(text, []byte(`"Jan 0001"`), []byte(`""`), 1), 0o666)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// The help texts fit a terminal: the prose is wrapped at 80 columns, and the
// flags end before column 90.
func TestHelpWidth(t *testing.T) {
	check := func(command, text string, most int) {
		for line := range strings.Lines(text) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > most {
				t.Errorf("%s: a line has %d columns, more than %d: %s", command, n, most, line)
			}
		}
	}
	root := newRootCommand()
	for _, cmd := range append(root.Commands(), root) {
		cmd.InitDefaultHelpFlag()
		check(cmd.Name(), cmd.Long, 80)
		check(cmd.Name(), cmd.Example, 80)
		check(cmd.Name(), cmd.UsageString(), 90)
	}
	flock := command("--help")
	flock.Args[0] = "flock"
	text, err := flock.Output()
	must(t, err)
	check("flock", string(text), 90)
}
