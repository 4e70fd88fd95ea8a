//go:build linux

// Bench measures fasteners beside other ways to lock a file between processes: libraries
// for Go and Python, and the bare system calls. See README.md.
package main

import (
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
	short := flag.Bool("quick", false, "measure for a short time, for a first look")
	only := flag.String("only", "", "take only the measures whose names match `regexp`")
	out := flag.String("o", "results", "`directory` for report.md")
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

	text := report(b, results)
	fmt.Print(text)
	if err := os.MkdirAll(*out, 0o777); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(*out, "report.md"), []byte(text), 0o666)
}
