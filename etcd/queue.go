package etcd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/lease"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// The queue of a lock consists of one key for each acquire, which has the lease of its session:
//
//	<name>/q/w/<lease>-<number>   exclusive
//	<name>/q/r/<lease>-<number>   shared
//
// Its order is that of the revisions at which the keys were created. An acquire has the lock once
// there is no earlier key that it conflicts with: any for an exclusive one, an exclusive one for
// a shared one. It waits only for the last one of these, its predecessor, so that a release wakes
// one waiter. That the predecessor is gone need not mean that the lock is free: it can have given
// up while those before it were still there. So the waiter looks again, and then it either has
// the lock or another predecessor.
const queuePath = "/q/"

// keyPart is the part of a key that tells what it excludes.
func keyPart(m lease.Mode) string {
	if m == lease.Shared {
		return "r/"
	}
	return "w/"
}

// conflicting returns the prefix of the keys that an acquire in this mode has to wait for.
func conflicting(name string, m lease.Mode) string {
	if m == lease.Shared {
		return name + queuePath + keyPart(lease.Exclusive)
	}
	return name + queuePath
}

// The number of a key is used again once the key is gone: etcd remembers the name of each key
// that was deleted until its history is compacted, and with more of them in a queue each look
// takes longer. So a key is known by its name and the revision at which it was created.

// A place is one acquire's place in the queue.
type place struct {
	lease  *sessionLease
	name   string // of the lock
	mode   lease.Mode
	number uint64 // in the key
	key    string
	rev    int64 // at which the key was created, or 0 if it is not known to exist
	waited bool  // for a predecessor

	// unanswered means that a request to create the key had no answer. It can still arrive.
	unanswered bool
}

// A predecessor is the key that a place has to wait for.
type predecessor struct {
	key  string // or "" if there is none
	rev  int64  // at which it was created
	seen int64  // at which it was there
}

func newPlace(l *sessionLease, name string, m lease.Mode) *place {
	number := l.takeNumber()
	key := name + queuePath + keyPart(m) + fmt.Sprintf("%016x-%x", int64(l.id), number)
	return &place{lease: l, name: name, mode: m, number: number, key: key}
}

// acquire acquires the lock of that name, for [lease.Engine]. A waiter that loses its lease, or
// its key, queues again at the end.
func (s *Session) acquire(ctx context.Context, name string, m lease.Mode, try bool) (*hold, error) {
	if strings.Contains(name+"/", queuePath) { // its keys could be in the queue of another lock
		return nil, fmt.Errorf(`"/q" in name: %w`, fs.ErrInvalid)
	}
	for {
		l, err := s.currentLease(ctx)
		if ctx.Err() != nil {
			return nil, lease.ContextError(ctx)
		}
		if err != nil {
			return nil, err
		}
		hold, err := l.acquire(ctx, name, m, try)
		if err != errRequeue {
			return hold, err
		}
	}
}

// acquire acquires the lock with that lease.
func (l *sessionLease) acquire(ctx context.Context, name string, m lease.Mode, try bool) (*hold, error) {
	both, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.Context(), cancel)()

	p := newPlace(l, name, m)
	before, err := p.enter(both, try)
	for err == nil && before.key != "" {
		p.waited = true
		l.session.waitDeleted(both, before)
		before, err = p.look(both)
	}
	if err == nil && l.Err() == nil {
		return &hold{Hold: lease.Hold{Lease: l.Lease, Token: p.rev}, place: p}, nil
	}
	p.leave()
	switch {
	case ctx.Err() != nil && p.waited:
		return nil, &fasteners.HeldError{Err: lease.ContextError(ctx)}
	case ctx.Err() != nil:
		return nil, lease.ContextError(ctx)
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		l.Lose(errLeaseGone)
		return nil, errRequeue
	case l.Err() != nil:
		return nil, errRequeue // if the session is closed, that is found out then
	}
	return nil, err
}

// enter creates the key, and returns the predecessor. It does both in one transaction, in the
// other order. Since each acquire has a key of its own, the request can be repeated if there is
// no answer to it.
func (p *place) enter(ctx context.Context, try bool) (predecessor, error) {
	for {
		barrier := p.lease.barrier(p.name)
		conditions := []clientv3.Cmp{
			clientv3.Compare(clientv3.CreateRevision(p.key), "=", 0),
			clientv3.Compare(clientv3.ModRevision(p.barrierKey()), "=", barrier),
		}
		if try {
			conflict := clientv3.CreateRevision(conflicting(p.name, p.mode))
			conditions = append(conditions, clientv3.Compare(conflict, "=", 0).WithPrefix())
		}
		var resp *clientv3.TxnResponse
		err := p.session().ask(ctx, func(ctx context.Context) (err error) {
			resp, err = p.session().client.Txn(ctx).If(conditions...).
				Then(p.lookFor(0), clientv3.OpPut(p.key, "", clientv3.WithLease(p.lease.id))).
				Else(clientv3.OpGet(p.key), clientv3.OpGet(p.barrierKey(), clientv3.WithKeysOnly())).
				Commit()
			p.unanswered = p.unanswered || err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound)
			return err
		})
		if err != nil {
			return predecessor{}, err
		}
		if resp.Succeeded {
			p.rev = resp.Header.Revision
			return predecessorIn(resp), nil
		}
		if keys := resp.Responses[0].GetResponseRange().Kvs; len(keys) > 0 {
			p.rev = keys[0].CreateRevision // by a try that had no answer
			return p.look(ctx)
		}
		var current int64
		if keys := resp.Responses[1].GetResponseRange().Kvs; len(keys) > 0 {
			current = keys[0].ModRevision
		}
		if current == barrier {
			return predecessor{}, lease.ErrBusy
		}
		p.lease.setBarrier(p.name, current)
	}
}

// look returns the predecessor. Its error is errRequeue if the key is gone.
func (p *place) look(ctx context.Context) (predecessor, error) {
	var resp *clientv3.TxnResponse
	err := p.session().ask(ctx, func(ctx context.Context) (err error) {
		resp, err = p.session().client.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision(p.key), "=", p.rev)).
			Then(p.lookFor(p.rev)).
			Commit()
		return err
	})
	switch {
	case err != nil:
		return predecessor{}, err
	case !resp.Succeeded:
		return predecessor{}, errRequeue
	}
	return predecessorIn(resp), nil
}

// lookFor asks for the predecessor of a key that was created at rev, or is not there yet if rev
// is 0.
func (p *place) lookFor(rev int64) clientv3.Op {
	opts := append(clientv3.WithLastCreate(), clientv3.WithKeysOnly())
	if rev > 0 {
		opts = append(opts, clientv3.WithMaxCreateRev(rev-1))
	}
	return clientv3.OpGet(conflicting(p.name, p.mode), opts...)
}

// predecessorIn returns the predecessor in an answer to what begins with lookFor.
func predecessorIn(resp *clientv3.TxnResponse) predecessor {
	keys := resp.Responses[0].GetResponseRange().Kvs
	if len(keys) == 0 {
		return predecessor{}
	}
	return predecessor{key: string(keys[0].Key), rev: keys[0].CreateRevision, seen: resp.Header.Revision}
}

func (p *place) session() *Session  { return p.lease.session }
func (p *place) barrierKey() string { return barrierKey(p.name, p.lease.id) }

// leave deletes the key in the background, if there is one or can be one.
func (p *place) leave() {
	if p.rev != 0 || p.unanswered {
		p.cleanUp()
	} else {
		p.lease.putBack(p.number)
	}
}
