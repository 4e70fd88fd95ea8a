package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
)

func newCheckCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check DIR",
		Short: "Try whether locks work on the file system of a directory",
		Long: `Check tries, with several processes and in a new directory in DIR, what the locks need of the
file system: exclusion, readers that share the lock, release when the holder dies, and others.
It prints the type of the file system and a verdict for each. The directory is removed.

It cannot tell whether processes of other hosts are excluded: on a file system that several
hosts use, no check on one of them can.

The exit status is 0 if everything holds, and 1 if something does not.`,
		Example: `  fasteners check /mnt/share
  fasteners check --json . | jq .ok`,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if isWorker() {
				return runCheckWorker()
			}
			return runCheck(cmd, args[0], asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

// A verdict is what has come of one check.
type verdict struct {
	Name   string `json:"name"`
	Result result `json:"result"`
	Detail string `json:"detail"`
	Means  string `json:"means,omitempty"` // what a failure means for the user
}

type result string

const (
	pass result = "pass"
	fail result = "fail"
	info result = "info" // a fact that is neither good nor bad
)

// A checkReport is what --json prints.
type checkReport struct {
	Directory  string     `json:"directory"`
	FileSystem fileSystem `json:"fileSystem"`
	Checks     []verdict  `json:"checks"`
	OK         bool       `json:"ok"`
}

// A fileSystem is what the operating system tells about the file system of a directory.
type fileSystem struct {
	Type    string   `json:"type"` // "" if unknown
	Source  string   `json:"source,omitempty"`
	Mount   string   `json:"mount,omitempty"`
	Options string   `json:"options,omitempty"`
	Notes   []string `json:"notes,omitempty"` // what follows for locks
}

func runCheck(cmd *cobra.Command, dir string, asJSON bool) (err error) {
	ctx, stop := contextOfSignals()
	defer stop()
	c, err := newChecker(ctx, dir)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := c.close(); err == nil {
			err = closeErr
		}
	}()
	report := checkReport{Directory: dir, FileSystem: fileSystemOf(c.dir), OK: true}
	out := cmd.OutOrStdout()
	if asJSON {
		out = io.Discard
	}
	printFileSystem(out, report.Directory, report.FileSystem)
	line := newProgressLine(cmd.ErrOrStderr())
	for i, check := range checks {
		line.print(fmt.Sprintf("checking %s (%d of %d)", check.name, i+1, len(checks)))
		v := check.run(c)
		line.clear()
		if ctx.Err() != nil {
			return interruption(ctx)
		}
		report.Checks = append(report.Checks, v)
		report.OK = report.OK && v.Result != fail
		printVerdict(out, v)
	}
	if asJSON {
		if err := printJSON(cmd.OutOrStdout(), report); err != nil {
			return err
		}
	} else {
		printConclusion(out, report.OK)
	}
	if !report.OK {
		return &statusError{exitFailure, nil}
	}
	return nil
}

func printFileSystem(out io.Writer, dir string, fs fileSystem) {
	kind := fs.Type
	if kind == "" {
		kind = "unknown"
	}
	fmt.Fprintf(out, "directory:    %s\nfile system:  %s", dir, kind)
	if fs.Source != "" {
		fmt.Fprintf(out, ", %s on %s", fs.Source, fs.Mount)
	}
	fmt.Fprintln(out)
	if fs.Options != "" {
		fmt.Fprintf(out, "options:      %s\n", fs.Options)
	}
	for _, note := range fs.Notes {
		fmt.Fprintf(out, "note:         %s\n", note)
	}
	fmt.Fprintln(out)
}

func printVerdict(out io.Writer, v verdict) {
	fmt.Fprintf(out, "%s  %-14s %s\n", v.Result, v.Name, v.Detail)
	if v.Means != "" {
		fmt.Fprintf(out, "      %-14s %s\n", "", v.Means)
	}
}

func printConclusion(out io.Writer, ok bool) {
	if ok {
		fmt.Fprintln(out, "\nLocks work in this directory, among the processes of this machine.")
	} else {
		fmt.Fprintln(out, "\nDo not use locks in this directory. Put the lock files on a local file system.")
	}
}

func printJSON(out io.Writer, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err == nil {
		_, err = out.Write(append(data, '\n'))
	}
	return err
}

// interruption returns the error of a program that ends because of the signal that has ended ctx.
func interruption(ctx context.Context) error {
	var e *signalError
	if !errors.As(context.Cause(ctx), &e) {
		return ctx.Err()
	}
	return &statusError{exitSignalBase + e.number(), nil}
}

// A checker has what all checks need: a directory and some workers.
type checker struct {
	ctx     context.Context
	dir     string
	board   *board
	path    string // of the board
	members []*member
}

// A member is a worker that has joined.
type member struct {
	*worker
	number int
}

const (
	checkWorkers = 4
	mustTimeout  = 8 * time.Second        // of a wait that has to succeed
	patience     = 100 * time.Millisecond // of a wait that has to fail
)

func newChecker(ctx context.Context, parent string) (_ *checker, err error) {
	c := &checker{ctx: ctx}
	if c.dir, err = newWorkDir(parent, ".fasteners-check-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = c.close()
		}
	}()
	if c.board, c.path, err = createBoard(checkWorkers, 1); err != nil {
		return nil, err
	}
	c.members = make([]*member, checkWorkers)
	for i := range c.members {
		if err := c.start(i); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// start starts the worker with that number, or the next process for it.
func (c *checker) start(number int) error {
	w, err := startWorker("check", c.dir)
	if err != nil {
		return err
	}
	c.board.admit(number)
	c.board.marks[number].pid.Store(uint64(w.pid()))
	m := &member{w, number}
	c.members[number] = m
	_, err = c.ask(m, request{Do: "join", Dir: c.dir, Board: c.path, Number: number, Workers: checkWorkers})
	return err
}

// close ends the workers and removes everything.
func (c *checker) close() error {
	for _, m := range c.members {
		if m != nil {
			m.end()
		}
	}
	if c.path != "" {
		_ = os.Remove(c.path)
	}
	return os.RemoveAll(c.dir)
}

func (m *member) end() {
	_ = m.cmd.Process.Kill()
	for range m.messages {
	}
	<-m.exited
}

// ask sends a request and waits for the reply.
func (c *checker) ask(m *member, r request) (reply, error) {
	if err := m.send(r); err != nil {
		return reply{}, m.gone(err)
	}
	return c.await(m, r.Timeout)
}

// await waits for the reply to a request that was sent.
func (c *checker) await(m *member, timeout time.Duration) (reply, error) {
	// A file system that does not answer must not keep the user waiting: there are others to check.
	limit := time.NewTimer(timeout + mustTimeout)
	defer limit.Stop()
	var message json.RawMessage
	var ok bool
	select {
	case message, ok = <-m.messages:
	case <-limit.C:
		return reply{}, fmt.Errorf("worker process %d does not answer: %w", m.pid(), os.ErrDeadlineExceeded)
	case <-c.ctx.Done():
		return reply{}, context.Cause(c.ctx)
	}
	if !ok {
		return reply{}, m.failure()
	}
	var r reply
	err := json.Unmarshal(message, &r)
	if err == nil && r.Error != "" {
		err = &refusal{errors.New(r.Error)}
	}
	return r, err
}

// A refusal is an error that a worker has got.
type refusal struct{ error }

// gone explains a request that could not be sent.
func (m *member) gone(err error) error {
	select {
	case <-m.exited:
		return m.failure()
	default:
		return err
	}
}
