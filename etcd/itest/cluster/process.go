package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
)

const memberVariable = "FASTENERS_TEST_ETCD_MEMBER"

// RunMember runs a member, and does not return, if this process was started by [Start] for that.
func RunMember() {
	config := os.Getenv(memberVariable)
	if config == "" {
		return
	}
	go func() { // exit with the parent, which has the other end
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Fprintln(os.Stderr, "etcd:", runMember(config))
	os.Exit(1)
}

func runMember(config string) error {
	var m member
	if err := json.Unmarshal([]byte(config), &m); err != nil {
		return err
	}
	etcd, err := embed.StartEtcd(m.config())
	if err != nil {
		return err
	}
	<-etcd.Server.ReadyNotify()
	fmt.Println("ready")
	select {
	case err := <-etcd.Err():
		return err
	case <-etcd.Server.StopNotify():
		return errors.New("stopped")
	}
}

// A Process is a member of a cluster in a process of its own.
type Process struct {
	member member
	mu     sync.Mutex
	cmd    *exec.Cmd // or nil
	stdin  io.Closer
}

// Start starts a cluster of n members, each in a process that runs this program, which must call
// [RunMember] first. If noSync is true, they do not sync their data to disk.
func Start(dir string, n int, noSync bool) ([]*Process, error) {
	all, err := members(dir, n, noSync)
	if err != nil {
		return nil, err
	}
	processes, errs := make([]*Process, n), make([]error, n)
	var started sync.WaitGroup
	for i, m := range all {
		processes[i] = &Process{member: m}
		started.Go(func() { errs[i] = processes[i].Start() })
	}
	started.Wait()
	if err := errors.Join(errs...); err != nil {
		for _, p := range processes {
			p.Kill()
		}
		return nil, err
	}
	return processes, nil
}

// Addr returns the address for clients.
func (p *Process) Addr() string { return p.member.Client }

// Start starts the member, again if it was killed, and waits until it takes part in the cluster.
func (p *Process) Start() error {
	config, err := json.Marshal(p.member)
	if err != nil {
		return err
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), memberVariable+"="+string(config))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	p.mu.Lock()
	p.cmd, p.stdin = cmd, stdin
	p.mu.Unlock()
	if _, err := io.ReadFull(stdout, make([]byte, len("ready"))); err != nil {
		return fmt.Errorf("member %s has not started: %w", p.member.Name, err)
	}
	return nil
}

// Kill kills the member.
func (p *Process) Kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		_ = p.stdin.Close()
		p.cmd = nil
	}
}

// Stop stops the member until Continue is called.
func (p *Process) Stop() { _ = p.cmd.Process.Signal(syscall.SIGSTOP) }

// Continue continues a stopped member.
func (p *Process) Continue() { _ = p.cmd.Process.Signal(syscall.SIGCONT) }

// Leader returns the one that leads the cluster.
func Leader(ctx context.Context, c *clientv3.Client, all []*Process) (*Process, error) {
	for ctx.Err() == nil {
		for _, p := range all {
			status, err := c.Status(ctx, p.Addr())
			if err == nil && status.Leader == status.Header.MemberId {
				return p, nil
			}
		}
	}
	return nil, ctx.Err()
}
