package etcd_test

import (
	"context"
	"errors"
	"log"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/etcd"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A store stands for a resource that refuses a write with a token below the greatest that it has
// seen.
type store interface {
	Write(ctx context.Context, token int64, data []byte) error
}

var (
	client    *clientv3.Client
	reports   store
	newReport []byte
)

func ExampleNewLock() {
	session := etcd.NewSession(client)
	defer session.Close(context.Background())
	lock := etcd.NewLock(session, "/locks/report")

	err := fasteners.WithLock(context.Background(), lock, func(ctx context.Context) error { // done if the lock is lost
		token, _ := fasteners.Token(ctx)
		return reports.Write(ctx, token, newReport)
	})
	if errors.Is(err, fasteners.ErrLost) {
		log.Print(err)
	}
}

func ExampleCommit() {
	session := etcd.NewSession(client, etcd.WithTTL(30*time.Second), etcd.WithTimeout(5*time.Second))
	defer session.Close(context.Background())
	lock := etcd.NewLock(session, "/locks/report")

	err := fasteners.WithLock(context.Background(), lock, func(ctx context.Context) error {
		_, err := etcd.Commit(ctx, clientv3.OpPut("/report", string(newReport))) // or nothing, if the lock is lost
		return err
	})
	if err != nil {
		log.Print(err)
	}
}
