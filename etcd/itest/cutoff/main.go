// Cutoff shows what happens to the holder of a lock that is cut off from etcd: it is told before
// the next one has the lock, and what it writes after that is refused.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/etcd"
	"github.com/go-fasteners/fasteners/etcd/itest/cluster"
	"github.com/go-fasteners/fasteners/internal/enginetest/faultproxy"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func main() {
	log.SetFlags(0)
	ttl := flag.Duration("ttl", 3*time.Second, "how long etcd keeps the lock of a holder that it does not hear from")
	flag.Parse()
	if err := run(*ttl); err != nil {
		log.Fatal(err)
	}
}

func run(ttl time.Duration) error {
	dir, err := os.MkdirTemp("", "cutoff")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	server, err := cluster.Embed(dir)
	if err != nil {
		return err
	}
	defer server.Close()
	proxy, err := faultproxy.Start(server.Addr())
	if err != nil {
		return err
	}
	defer proxy.Close()
	far, err := newUser(proxy.Addr(), ttl)
	if err != nil {
		return err
	}
	defer far.close()
	near, err := newUser(server.Addr(), ttl)
	if err != nil {
		return err
	}
	defer near.close()

	s := &store{}
	next := make(chan error, 1)
	err = fasteners.WithLock(context.Background(), far.lock, func(ctx context.Context) error {
		say("A", "has the lock, and writes: %v", s.write(ctx, "A"))
		go func() {
			next <- fasteners.WithLock(context.Background(), near.lock, func(ctx context.Context) error {
				say("B", "has the lock, and writes: %v", s.write(ctx, "B"))
				return nil
			})
		}()
		say("A", "is cut off")
		proxy.Forward(false, false)
		<-ctx.Done()
		say("A", "is told: %v", context.Cause(ctx))
		if err := <-next; err != nil {
			return err
		}
		// A careful function stops when its context is done. This one is not careful, or was
		// stopped.
		say("A", "writes all the same: %v", s.write(ctx, "A"))
		proxy.Forward(true, true)
		_, err := etcd.Commit(context.WithoutCancel(ctx), clientv3.OpPut("report", "by A"))
		say("A", "writes to etcd: %v", err)
		return nil
	})
	say("A", "WithLock has returned: %v", err)
	if !errors.Is(err, fasteners.ErrLost) || s.refused != 1 {
		return errors.New("that is not how it ought to be")
	}
	return nil
}

var start = time.Now()

func say(name, format string, args ...any) {
	fmt.Printf("%6.2f s  %s %s\n", time.Since(start).Seconds(), name, fmt.Sprintf(format, args...))
}

// A store refuses a write with a token below the greatest that it has seen.
type store struct {
	token   int64
	refused int
}

func (s *store) write(ctx context.Context, name string) error {
	token, _ := fasteners.Token(ctx)
	if token < s.token {
		s.refused++
		return fmt.Errorf("refused, as token %d is less than %d", token, s.token)
	}
	s.token = token
	return nil
}

// A user has a lock, and a client of its own.
type user struct {
	client  *clientv3.Client
	session *etcd.Session
	lock    *etcd.Lock
}

func newUser(addr string, ttl time.Duration) (*user, error) {
	c, err := cluster.Client([]string{addr})
	if err != nil {
		return nil, err
	}
	s := etcd.NewSession(c, etcd.WithTTL(ttl))
	return &user{c, s, etcd.NewLock(s, "/locks/report")}, nil
}

func (u *user) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = u.session.Close(ctx)
	_ = u.client.Close()
}
