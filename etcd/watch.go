package etcd

import (
	"context"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/go-fasteners/fasteners/lease"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"
)

// All watches of a client that have the same metadata share one stream of gRPC, on one
// connection. If that is dead without a sign of it, no watch hears of anything, and new ones join
// it. So the metadata of our watches has a number. A session that finds its stream dead uses
// another number from then on, and gets a stream on another connection.
type stream struct {
	number uint64
	heard  atomic.Int64 // when anything was heard on it, on the clock of leases; or 0
}

const streamKey = "fasteners-stream"

// context returns a context for a watch on the stream, which the server is to cancel if it has no
// leader. It has no other metadata of ctx: each set would make a stream of its own.
func (st *stream) context(ctx context.Context) context.Context {
	return metadata.NewOutgoingContext(ctx, metadata.Pairs(
		rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader,
		streamKey, strconv.FormatUint(st.number, 10)))
}

// silent reports whether nothing was heard on the stream for that long.
func (st *stream) silent(d time.Duration) bool {
	return lease.Now()-time.Duration(st.heard.Load()) >= d
}

// currentStream returns the stream for watches that begin now.
func (s *Session) currentStream() *stream {
	if st := s.stream.Load(); st != nil {
		return st
	}
	s.stream.CompareAndSwap(nil, new(stream))
	return s.stream.Load()
}

// leaveStream makes later watches use another stream, if they use this one now.
func (s *Session) leaveStream(st *stream) {
	s.stream.CompareAndSwap(st, &stream{number: st.number + 1})
}

// waitDeleted waits until that key is deleted. It also returns if ctx is done or the watch fails,
// so the caller must look.
//
// It watches from now on, and not from the revision seen: etcd serves a watch that begins in the
// past up to 100 ms later. That the key was deleted in between it finds out by asking, once the
// watch has begun, if there was any change of etcd at all. It also asks if it hears nothing, as
// the connection can be dead.
func (s *Session) waitDeleted(ctx context.Context, p predecessor) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	st := s.currentStream()
	events := s.watch(ctx, cancel, st, p.key)
	interval := s.options.ttl / 2
	ask := time.NewTimer(interval)
	defer ask.Stop()
	for {
		select {
		case resp, ok := <-events:
			if !ok || resp.Err() != nil {
				sleep(ctx, minPause)
				return
			}
			st.heard.Store(int64(lease.Now()))
			switch {
			case len(resp.Events) > 0:
				return
			case resp.Created && resp.Header.Revision > p.seen && !s.exists(ctx, p):
				return
			}
		case <-ask.C:
			if st.silent(interval) && !s.exists(ctx, p) {
				s.leaveStream(st) // which ought to have told
				return
			}
			ask.Reset(interval)
		}
	}
}

// watch begins a watch, and returns when it has begun. The client begins only one at a time on
// each stream: so a watch is late only if nothing was heard on the stream, whatever the number of
// those before it. Then watch leaves the stream, and calls cancel, which must cancel ctx.
func (s *Session) watch(ctx context.Context, cancel func(), st *stream, key string) clientv3.WatchChan {
	begun := make(chan struct{})
	defer close(begun)
	go func() {
		for {
			select {
			case <-begun:
				return
			case <-time.After(s.firstTry()):
			}
			if st.silent(s.firstTry()) {
				s.leaveStream(st)
				cancel()
				return
			}
		}
	}()
	return s.client.Watch(st.context(ctx), key, clientv3.WithFilterPut(), clientv3.WithCreatedNotify())
}

// exists reports whether the key exists. If there is no answer, it says that it does not, so that
// its caller looks for itself.
func (s *Session) exists(ctx context.Context, p predecessor) bool {
	rev, err := s.created(ctx, p.key)
	return err == nil && rev == p.rev
}

// created returns the revision at which the key was created, or 0 if it does not exist.
func (s *Session) created(ctx context.Context, key string) (rev int64, err error) {
	var resp *clientv3.GetResponse
	err = s.ask(ctx, func(ctx context.Context) (err error) {
		resp, err = s.client.Get(ctx, key, clientv3.WithKeysOnly())
		return err
	})
	if err != nil || len(resp.Kvs) == 0 {
		return 0, err
	}
	return resp.Kvs[0].CreateRevision, nil
}
