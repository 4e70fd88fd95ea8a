package etcd

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	minPause = 25 * time.Millisecond
	maxPause = time.Second
)

// firstTry is how long the first try of a call may take.
func (s *Session) firstTry() time.Duration {
	return min(max(s.options.ttl/6, 500*time.Millisecond), time.Second)
}

// call calls f, which sends one request, until there is an answer, ctx is done, or trying again
// would not help. The context of each try has a deadline: a connection can be dead without a sign
// of it, and the next try goes to another member. Each try may take twice as long as the last
// one, up to the TTL, since a slow network or server is not a dead one.
func (s *Session) call(ctx context.Context, f func(context.Context) error) error {
	timeout, pause := s.firstTry(), minPause
	for {
		try, cancel := context.WithTimeout(ctx, timeout)
		err := f(try)
		cancel()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case !retryable(s.client, err):
			return err
		}
		if !sleep(ctx, pause) {
			return ctx.Err()
		}
		timeout, pause = min(2*timeout, max(s.options.ttl, timeout)), min(2*pause, maxPause)
	}
}

// maxQuestions is the number of requests about queues that a session sends at a time. Each of
// them takes etcd the longer the more keys are in the queue. If a thousand goroutines asked at
// once, most would have no answer in time, and ask again, and etcd would have no time for the
// signs of life.
const maxQuestions = 16

// ask is call for a request about a queue.
func (s *Session) ask(ctx context.Context, f func(context.Context) error) error {
	select {
	case s.questions <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.questions }()
	return s.call(ctx, f)
}

// retryable reports whether a call that has failed with err may succeed later.
func retryable(client *clientv3.Client, err error) bool {
	if client.Ctx().Err() != nil { // it is closed
		return false
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, rpctypes.ErrTooManyRequests) {
		return true
	}
	code := status.Code(err)
	var answer rpctypes.EtcdError
	if errors.As(err, &answer) {
		code = answer.Code()
	}
	switch code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Aborted, codes.Internal:
		return true
	}
	return false
}

// sleep waits for d, and reports whether ctx was not done meanwhile.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
