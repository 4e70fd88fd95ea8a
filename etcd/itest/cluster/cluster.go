// Package cluster runs etcd for tests and examples: in this process, or as processes that can be
// killed and stopped.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// A config is the configuration of a member of a cluster.
type config struct {
	Name, Dir, Client, Peer, Cluster string
	NoSync                           bool
}

func (c config) embed() *embed.Config {
	e := embed.NewConfig()
	client, peer := url.URL{Scheme: "http", Host: c.Client}, url.URL{Scheme: "http", Host: c.Peer}
	e.Name, e.Dir, e.InitialCluster, e.UnsafeNoFsync = c.Name, c.Dir, c.Cluster, c.NoSync
	e.ListenClientUrls, e.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	e.ListenPeerUrls, e.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	e.LogLevel, e.LogOutputs = "panic", []string{"stderr"}
	if level := os.Getenv("FASTENERS_TEST_ETCD_LOG"); level != "" {
		e.LogLevel = level
	}
	return e
}

// An Embedded is a cluster of one member in this process.
type Embedded struct{ etcd *embed.Etcd }

// Embed starts a cluster of one member in this process, with its data in dir. It does not sync
// them to disk.
func Embed(dir string) (*Embedded, error) {
	const any = "127.0.0.1:0"
	c := config{Name: "m0", Dir: dir, Client: any, Peer: any, Cluster: "m0=http://" + any, NoSync: true}
	etcd, err := embed.StartEtcd(c.embed())
	if err != nil {
		return nil, err
	}
	select {
	case <-etcd.Server.ReadyNotify():
		return &Embedded{etcd}, nil
	case <-time.After(time.Minute):
		etcd.Close()
		return nil, errors.New("etcd is not ready after a minute")
	}
}

// Addr returns the address for clients.
func (e *Embedded) Addr() string { return e.etcd.Clients[0].Addr().String() }

// Close stops the member.
func (e *Embedded) Close() { e.etcd.Close() }

// configs returns the configurations of a cluster of n members, with ports that are free now.
func configs(dir string, n int, noSync bool) ([]config, error) {
	var all []config
	var initial []string
	for i := range n {
		var addrs [2]string
		for j := range addrs {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return nil, err
			}
			defer l.Close() // after all are chosen
			addrs[j] = l.Addr().String()
		}
		name := fmt.Sprintf("m%d", i)
		all = append(all, config{
			Name: name, Dir: filepath.Join(dir, name), Client: addrs[0], Peer: addrs[1], NoSync: noSync,
		})
		initial = append(initial, name+"=http://"+addrs[1])
	}
	for i := range all {
		all[i].Cluster = strings.Join(initial, ",")
	}
	return all, nil
}

// Client returns a client of the members with those addresses, with the settings that the README
// recommends, and more options if there are any.
func Client(addrs []string, more ...grpc.DialOption) (*clientv3.Client, error) {
	connect := grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: 2 * time.Second}
	connect.Backoff.BaseDelay, connect.Backoff.MaxDelay = 100*time.Millisecond, 2*time.Second
	return clientv3.New(clientv3.Config{
		Endpoints:            addrs,
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 3 * time.Second,
		DialOptions:          append(more, grpc.WithConnectParams(connect)),
		Logger:               zap.NewNop(),
	})
}

// Ready waits until the cluster can write.
func Ready(ctx context.Context, c *clientv3.Client) error {
	for {
		try, cancel := context.WithTimeout(ctx, time.Second)
		_, err := c.Put(try, "ready", "")
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
}
