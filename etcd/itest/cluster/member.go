package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/go-fasteners/fasteners/internal/enginetest/process"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
)

// Function is the name of [RunMember] in [process.Main] of a program that calls [Start].
const Function = "member"

// RunMember runs a member in this process.
func RunMember(args []string) error {
	var c config
	if err := json.Unmarshal([]byte(args[0]), &c); err != nil {
		return err
	}
	etcd, err := embed.StartEtcd(c.embed())
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

// A Member is a member of a cluster in a process of its own, which can be killed and stopped.
type Member struct {
	*process.Process // the last one, or nil
	config           config
}

// Start starts a cluster of n members. If noSync is true, they do not sync their data to disk.
func Start(dir string, n int, noSync bool) ([]*Member, error) {
	all, err := configs(dir, n, noSync)
	if err != nil {
		return nil, err
	}
	members, errs := make([]*Member, n), make([]error, n)
	var started sync.WaitGroup
	for i, c := range all {
		members[i] = &Member{config: c}
		started.Go(func() { errs[i] = members[i].Start() })
	}
	started.Wait()
	if err := errors.Join(errs...); err != nil {
		for _, m := range members {
			if m.Process != nil {
				m.Kill()
			}
		}
		return nil, err
	}
	return members, nil
}

// Addr returns the address for clients.
func (m *Member) Addr() string { return m.config.Client }

// Start starts the member, again if it was killed, and waits until it takes part in the cluster.
func (m *Member) Start() error {
	config, err := json.Marshal(m.config)
	if err != nil {
		return err
	}
	cmd, err := process.Self(Function, string(config))
	if err != nil {
		return err
	}
	if m.Process, err = process.Start(cmd); err != nil {
		return err
	}
	if line, _ := m.Line(); line != "ready" {
		return fmt.Errorf("member %s has not started", m.config.Name)
	}
	return nil
}

// Leader returns the one that leads the cluster.
func Leader(ctx context.Context, c *clientv3.Client, all []*Member) (*Member, error) {
	for ctx.Err() == nil {
		for _, m := range all {
			status, err := c.Status(ctx, m.Addr())
			if err == nil && status.Leader == status.Header.MemberId {
				return m, nil
			}
		}
	}
	return nil, ctx.Err()
}
