//go:build linux

// Bench compares the speed of fasteners with that of other cross-process locks: libraries for Go
// and Python, and bare system calls. See README.md.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

func main() {
	serveIfWorker()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	short := flag.Bool("quick", false, "take three minutes instead of fifteen, for a first impression")
	only := flag.String("only", "", "run only the measures whose names match `regexp`")
	out := flag.String("o", "results", "`directory` for report.md and the charts")
	dir := flag.String("dir", os.TempDir(), "`directory` for the lock files")
	flag.Parse()
	plan := full
	if *short {
		plan = quick
	}
	match, err := regexp.Compile(*only)
	if err != nil {
		return err
	}

	tmp, err := os.MkdirTemp(*dir, "fasteners-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	b := newBench(plan, tmp)
	results := map[string]*result{}
	for _, m := range measures {
		if match.MatchString(m.name) {
			begin := time.Now()
			results[m.name] = m.take(b)
			fmt.Fprintf(os.Stderr, "%s took %v\n", m.name, time.Since(begin).Round(time.Second))
		}
	}

	// An error from here on must not lose the results.
	pictures, err := drawAll(b, results)
	text := report(b, results, pictures)
	fmt.Print(text)
	write := func(name string, content []byte) {
		err = errors.Join(err, os.WriteFile(filepath.Join(*out, name), content, 0o666))
	}
	err = errors.Join(err, os.MkdirAll(*out, 0o777))
	write("report.md", []byte(text))
	for _, p := range pictures {
		write(p.file, p.svg)
	}
	return err
}
