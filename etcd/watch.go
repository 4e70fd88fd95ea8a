package etcd

import (
	"context"
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"
)

// All watches of a client that have the same metadata share one stream of gRPC, on one connection. If
// that is dead without a sign of it, no watch hears of anything, and new ones join it. So the metadata of
// our watches has a number. A session that finds its stream dead uses another number from then on, and
// gets a stream on another connection.
const streamKey = "fasteners-stream"

// watchContext returns a context for a watch that is canceled by the server if it has no leader, on a
// stream with that number. It has no other metadata of ctx: each set would make a stream of its own.
func watchContext(ctx context.Context, stream uint64) context.Context {
	return metadata.NewOutgoingContext(ctx, metadata.Pairs(
		rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader,
		streamKey, strconv.FormatUint(stream, 10)))
}

// leaveStream makes later watches use another stream, if they use this one now.
func (s *Session) leaveStream(stream uint64) { s.stream.CompareAndSwap(stream, stream+1) }

// waitDeleted waits until that key is deleted. It also returns if ctx is done or the watch fails, so the
// caller must look.
//
// It watches from now on, and not from that revision: etcd serves a watch that begins in the past up to
// 100 ms later. That the key was deleted in between it finds out by asking, once the watch has begun, if
// there was any change of etcd at all. It also asks from time to time, as the connection can be dead.
func (s *Session) waitDeleted(ctx context.Context, p predecessor) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := s.stream.Load()
	tooLate := time.AfterFunc(s.firstTry(), func() {
		s.leaveStream(stream)
		cancel()
	})
	defer tooLate.Stop()
	// Watch returns when the watch has begun.
	events := s.client.Watch(watchContext(ctx, stream), p.key, clientv3.WithFilterPut(), clientv3.WithCreatedNotify())
	tooLate.Stop()
	interval := s.options.ttl / 2
	ask := time.NewTimer(interval)
	defer ask.Stop()
	for {
		select {
		case resp, ok := <-events:
			switch {
			case len(resp.Events) > 0:
				return
			case !ok || resp.Err() != nil:
				sleep(ctx, minPause)
				return
			case resp.Created && resp.Header.Revision > p.seen && !s.exists(ctx, p):
				return
			}
		case <-ask.C:
			if !s.exists(ctx, p) {
				s.leaveStream(stream) // which ought to have told
				return
			}
			ask.Reset(interval)
		}
	}
}

// exists reports whether the key exists. If there is no answer, it says that it does not, so that its
// caller looks for itself.
func (s *Session) exists(ctx context.Context, p predecessor) bool {
	rev, err := s.created(ctx, p.key)
	return err == nil && rev == p.rev
}

// created returns the revision at which the key was created, or 0 if it does not exist.
func (s *Session) created(ctx context.Context, key string) (rev int64, err error) {
	var resp *clientv3.GetResponse
	err = s.call(ctx, func(ctx context.Context) (err error) {
		resp, err = s.client.Get(ctx, key, clientv3.WithKeysOnly())
		return err
	})
	if err != nil || len(resp.Kvs) == 0 {
		return 0, err
	}
	return resp.Kvs[0].CreateRevision, nil
}
