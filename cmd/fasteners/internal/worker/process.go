package worker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
)

// A Process is the process of a worker, as seen by the one that has started it.
type Process struct {
	Number   int
	Messages <-chan json.RawMessage // from its standard output; closed at the end of that
	Exited   <-chan struct{}        // closed when the process is gone, with its locks
	Err      error                  // of the process; set before Exited is closed

	cmd    *exec.Cmd
	in     io.WriteCloser
	stderr tail
}

func start(cmd *exec.Cmd) (*Process, error) {
	messages, exited := make(chan json.RawMessage, 16), make(chan struct{})
	p := &Process{Messages: messages, Exited: exited, cmd: cmd}
	cmd.Env = append(os.Environ(), workerVar+"=1")
	cmd.Stderr = &p.stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	p.in = in
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		passOn(out, messages)
		close(messages)
		p.Err = cmd.Wait() // which must not be called before all is read
		close(exited)
	}()
	return p, nil
}

func passOn(out io.Reader, messages chan<- json.RawMessage) {
	d := json.NewDecoder(out)
	for {
		var m json.RawMessage
		if d.Decode(&m) != nil {
			break
		}
		messages <- m
	}
	_, _ = io.Copy(io.Discard, out)
}

// Send sends a message. If the process has ended, the error tells how.
func (p *Process) Send(v any) error {
	line, err := json.Marshal(v)
	if err == nil {
		_, err = p.in.Write(append(line, '\n'))
	}
	if err == nil {
		return nil
	}
	select {
	case <-p.Exited:
		return p.Failure()
	default:
		return err
	}
}

// PID returns the ID of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Failure describes the end of a process that should not have ended.
func (p *Process) Failure() error {
	<-p.Exited
	how := "has ended"
	if p.Err != nil {
		how = "has ended with " + p.Err.Error()
	}
	return fmt.Errorf("worker process %d %s: %s", p.PID(), how, bytes.TrimSpace(p.stderr.bytes()))
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
