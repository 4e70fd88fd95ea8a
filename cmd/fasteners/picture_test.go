//go:build linux

package main

import (
	"fmt"
	"html"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The commands of the picture in the README. While the first ones run, a backup
// holds the lock.
var pictureCommands = []string{
	"fasteners status backup.lock",
	"fasteners run --wait 2 backup.lock -- ./restore; echo status $?",
	"fasteners run --if-busy=skip backup.lock -- ./restore; echo status $?",
	"kill PID",
	"fasteners run backup.lock -- ./restore; echo status $?",
	"fasteners check .",
}

const picture = "../../docs/command.svg"

// The picture shows what the commands print, apart from numbers. With -update
// it becomes so.
func TestPicture(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "restore"), []byte("#!/bin/sh\necho restored\n"), 0o777))
	must(t, os.Symlink(os.Args[0], filepath.Join(dir, "backup")))
	holder := startProcess(t, inDirectory(dir, "run", "--no-fork", "backup.lock", "--", "./backup"))
	pid := strconv.Itoa(holder.held())
	var lines []string
	for _, c := range pictureCommands {
		c = strings.ReplaceAll(c, "PID", pid)
		lines = append(lines, "$ "+c)
		cmd := exec.Command("sh", "-c", c)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+program+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if _, ok := err.(*exec.ExitError); err != nil && !ok {
			t.Fatal(err)
		}
		if strings.HasPrefix(c, "kill") {
			holder.cmd.Wait() // it is killed
		}
		for line := range strings.Lines(string(out)) {
			line = strings.TrimRight(line, "\n")
			if !regexp.MustCompile(`^(checking |options:|note:)`).MatchString(line) {
				lines = append(lines, line)
			}
		}
	}
	made := svg(lines)
	if *update {
		must(t, os.WriteFile(picture, []byte(made), 0o666))
	}
	kept, err := os.ReadFile(picture)
	must(t, err)
	if got, want := withoutNumbers(string(kept)), withoutNumbers(made); got != want {
		t.Errorf("%s shows\n%s\nbut the commands print\n%s", picture, got, want)
	}
}

func inDirectory(dir string, args ...string) *exec.Cmd {
	cmd := command(args...)
	cmd.Dir = dir
	return cmd
}

// withoutNumbers removes what differs between two runs, and between two machines.
func withoutNumbers(text string) string {
	text = regexp.MustCompile(`file system:.*`).ReplaceAllString(text, "file system")
	// Which it is depends on the speed of the machine.
	text = regexp.MustCompile(`waiters (are woken|seem to poll)`).ReplaceAllString(text, "")
	text = regexp.MustCompile(`device 0x[0-9a-f]+, file [0-9]+`).ReplaceAllString(text, "device, file")
	text = regexp.MustCompile(`( for)? ?[0-9.]+(µs|ms|s)?`).ReplaceAllString(text, "")
	return strings.Join(strings.Fields(text), " ")
}

// svg draws a terminal.
func svg(lines []string) string {
	const width, height, left, top = 8.43, 19, 16, 32
	columns := 0
	for _, line := range lines {
		columns = max(columns, len([]rune(line)))
	}
	var s strings.Builder
	w, h := int(float64(columns)*width)+2*left, len(lines)*height+top+8
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" aria-label="A terminal: who holds a lock, a wait that ends, and a check of a file system">`+"\n", w, h, w, h)
	fmt.Fprintf(&s, `<rect width="%d" height="%d" rx="8" fill="#1c2128"/>`+"\n", w, h)
	fmt.Fprintln(&s, `<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="14" fill="#d0d7de" style="white-space: pre">`)
	for i, line := range lines {
		color := ""
		if strings.HasPrefix(line, "$ ") {
			color = ` fill="#ffffff" font-weight="600"`
		}
		if line != "" {
			fmt.Fprintf(&s, `<text x="%d" y="%d"%s>%s</text>`+"\n", left, top+i*height, color, html.EscapeString(line))
		}
	}
	fmt.Fprintln(&s, "</g>\n</svg>")
	return s.String()
}
