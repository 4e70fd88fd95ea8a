// Counter shows what a lock between processes is for. It starts several processes that
// increment the number in one file, first without a lock and then with one, and prints the
// resulting numbers.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/go-fasteners/fasteners"
)

func main() {
	log.SetFlags(0)
	processes := flag.Int("processes", 4, "how many `processes` increment the number")
	increments := flag.Int("increments", 2000, "how many `times` each of them does it")
	file := flag.String("work", "", "increment the number in `file` (used by the processes it starts)")
	lock := flag.String("lock", "", "under a lock on `file`")
	flag.Parse()

	if *file != "" {
		if err := work(*file, *lock, *increments); err != nil {
			log.Fatal(err)
		}
		return
	}

	dir, err := os.MkdirTemp("", "counter")
	if err != nil {
		log.Fatal(err)
	}
	err = compare(dir, *processes, *increments)
	os.RemoveAll(dir)
	if err != nil {
		log.Fatal(err)
	}
}

// compare counts without and with a lock, and prints both.
func compare(dir string, processes, increments int) error {
	want := processes * increments
	fmt.Printf("%d processes, each increments the number in one file %d times.\n\n", processes, increments)
	for _, test := range []struct{ name, lock string }{
		{"without a lock", ""},
		{"with a lock", filepath.Join(dir, "lock")},
	} {
		file := filepath.Join(dir, "number")
		if err := os.WriteFile(file, []byte("0"), 0o666); err != nil {
			return err
		}
		start := time.Now()
		if err := run(file, test.lock, processes, increments); err != nil {
			return err
		}
		took := time.Since(start)
		got, err := read(file)
		if err != nil {
			return err
		}
		fmt.Printf("%-15s  the number is %5d of %d, %5d updates were lost (%v)\n",
			test.name+":", got, want, want-got, took.Round(time.Millisecond))
		if test.lock != "" && got != want {
			return fmt.Errorf("updates were lost under a lock")
		}
	}
	return nil
}

// run starts the processes and waits for them.
func run(file, lock string, processes, increments int) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	var cmds []*exec.Cmd
	for range processes {
		cmd := exec.Command(exe, "-work", file, "-lock", lock, "-increments", strconv.Itoa(increments))
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			return err
		}
		cmds = append(cmds, cmd)
	}
	for _, cmd := range cmds {
		if werr := cmd.Wait(); err == nil {
			err = werr
		}
	}
	return err
}

// work is what each process does.
func work(file, lock string, increments int) error {
	step := func(context.Context) error { return increment(file) }
	if lock != "" {
		step = fasteners.InterProcessLocked(lock, step)
	}
	for range increments {
		if err := step(context.Background()); err != nil {
			return err
		}
	}
	return nil
}

// increment reads the number, adds one and writes it back. Two processes that do so at the
// same time can read the same number, and one of the two increments is lost.
func increment(file string) error {
	n, err := read(file)
	if err != nil {
		return err
	}
	// A single write replaces the old number, so that processes without a lock always find a
	// number, too.
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(f, "%-20d", n+1); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

func read(file string) (int, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}
