//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A contender is a program that runs a command under a lock.
type contender struct {
	name string
	args func(lock string, command ...string) []string
}

func contenders(b *testing.B) []contender {
	ours := filepath.Join(program, "fasteners")
	all := []contender{
		{"fasteners", func(lock string, command ...string) []string {
			return append([]string{ours, "run", lock, "--"}, command...)
		}},
		{"fasteners-F", func(lock string, command ...string) []string {
			return append([]string{ours, "run", "-F", lock, "--"}, command...)
		}},
	}
	for _, name := range []string{"flock", "lckdo"} {
		if _, err := exec.LookPath(name); err != nil {
			skipOrFail(b, name)
		}
		all = append(all, contender{name, func(lock string, command ...string) []string {
			if name == "lckdo" {
				command = append([]string{"-w", lock}, command...)
				return append([]string{name}, command...)
			}
			return append([]string{name, lock}, command...)
		}})
	}
	return all
}

// The time of a whole process that acquires a free lock and runs true. The
// contenders take turns.
func BenchmarkFreeLock(b *testing.B) {
	const rounds = 200
	all, lock := contenders(b), lockPath(b)
	times := map[string][]time.Duration{}
	for range b.N {
		for range rounds {
			for _, c := range all {
				args := c.args(lock, "true")
				start := time.Now()
				if err := exec.Command(args[0], args[1:]...).Run(); err != nil {
					b.Fatal(err)
				}
				times[c.name] = append(times[c.name], time.Since(start))
			}
		}
	}
	reportMedians(b, times)
}

// The time from just before one command ends until the next one runs. Ten
// processes wait for the lock.
func BenchmarkHandOff(b *testing.B) {
	const rounds, processes = 5, 10
	times := map[string][]time.Duration{}
	for range b.N {
		for range rounds {
			for _, c := range contenders(b) {
				times[c.name] = append(times[c.name], commandHandOffs(b, c, processes)...)
			}
		}
	}
	reportMedians(b, times)
}

func commandHandOffs(b *testing.B, c contender, processes int) (times []time.Duration) {
	dir := b.TempDir()
	log := filepath.Join(dir, "log")
	args := c.args(filepath.Join(dir, "lock"), "sh", "-c", "date +%s%N >>"+log+"; sleep 0.02; date +%s%N >>"+log)
	var started []*exec.Cmd
	for range processes {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Stderr = os.Stderr
		must(b, cmd.Start())
		started = append(started, cmd)
	}
	for _, cmd := range started {
		must(b, cmd.Wait())
	}
	content, err := os.ReadFile(log)
	must(b, err)
	var stamps []int
	for _, field := range strings.Fields(string(content)) {
		n, err := strconv.Atoi(field)
		must(b, err)
		stamps = append(stamps, n)
	}
	if len(stamps) != 2*processes {
		b.Fatalf("%d commands have run, want %d", len(stamps)/2, processes)
	}
	for i := 1; i < processes; i++ {
		times = append(times, time.Duration(stamps[2*i]-stamps[2*i-1]))
	}
	return times
}

func reportMedians(b *testing.B, times map[string][]time.Duration) {
	b.ReportMetric(0, "ns/op")
	for name, all := range times {
		slices.Sort(all)
		b.ReportMetric(all[len(all)/2].Seconds()*1e3, "ms/"+name)
	}
}
