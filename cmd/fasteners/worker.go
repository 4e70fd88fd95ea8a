package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
)

// The commands check and stress start this program again, as their workers. A worker has the same
// arguments and workerVar in its environment. It reads what to do from its standard input, as JSON, and
// ends when that ends: so no worker outlives the process that has started it, however that ends.
const workerVar = "FASTENERS_WORKER"

func isWorker() bool { return os.Getenv(workerVar) != "" }

// ignoreTerminal lets a worker go on after signals that the terminal sends to all of its processes. The
// one that has started the worker gets them, too, and ends the worker when it is time.
func ignoreTerminal() { signal.Ignore(os.Interrupt, syscall.SIGHUP) }

// newWorkDir creates a directory for the workers in parent, and returns its absolute path. From now on,
// the program does not end before it has removed the directory because nobody reads what it prints.
func newWorkDir(parent, prefix string) (string, error) {
	signal.Ignore(syscall.SIGPIPE)
	if parent == "" { // which means another directory to MkdirTemp
		return "", usageError("the name of the directory is empty")
	}
	parent, err := filepath.Abs(parent)
	if err != nil {
		return "", err
	}
	return os.MkdirTemp(parent, prefix)
}

// A worker is a worker process, as seen by the one that has started it.
type worker struct {
	cmd      *exec.Cmd
	in       io.WriteCloser
	messages chan json.RawMessage // from its standard output; closed at the end of that
	exited   chan struct{}        // closed when the process is gone, with its locks
	err      error                // of the process; set before exited is closed
	stderr   tail
}

// startWorker starts this program with the given arguments.
func startWorker(args ...string) (*worker, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return start(exec.Command(program, args...))
}

func start(cmd *exec.Cmd) (*worker, error) {
	w := &worker{cmd: cmd, messages: make(chan json.RawMessage, 16), exited: make(chan struct{})}
	cmd.Env = append(os.Environ(), workerVar+"=1")
	cmd.Stderr = &w.stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	w.in = in
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go w.read(out)
	return w, nil
}

// read passes the messages on. Wait must not be called before all of them are read.
func (w *worker) read(out io.Reader) {
	d := json.NewDecoder(out)
	for {
		var m json.RawMessage
		if d.Decode(&m) != nil {
			break
		}
		w.messages <- m
	}
	_, _ = io.Copy(io.Discard, out)
	close(w.messages)
	w.err = w.cmd.Wait()
	close(w.exited)
}

func (w *worker) send(v any) error {
	line, err := json.Marshal(v)
	if err == nil {
		_, err = w.in.Write(append(line, '\n'))
	}
	return err
}

func (w *worker) pid() int { return w.cmd.Process.Pid }

// failure describes the end of a process that should not have ended.
func (w *worker) failure() error {
	<-w.exited
	how := "has ended"
	if w.err != nil {
		how = "has ended with " + w.err.Error()
	}
	return fmt.Errorf("worker process %d %s: %s", w.pid(), how, bytes.TrimSpace(w.stderr.bytes()))
}

// A tail keeps the last part of what is written to it.
type tail struct {
	mu   sync.Mutex
	data []byte
}

const maxTail = 256 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, p...)
	if extra := len(t.data) - maxTail; extra > 0 {
		t.data = append([]byte(nil), t.data[extra:]...)
	}
	return len(p), nil
}

func (t *tail) bytes() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Clone(t.data)
}
