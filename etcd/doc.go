// Package etcd provides the locks of fasteners between machines. They are kept by an etcd cluster,
// version 3.4 or later.
//
//	session := etcd.NewSession(client)
//	defer session.Close(ctx)
//	lock := etcd.NewLock(session, "/locks/report")
//
//	err := fasteners.WithLock(ctx, lock, func(ctx context.Context) error { // done if the lock is lost
//		token, _ := fasteners.Token(ctx)
//		return store.Write(ctx, token, report) // refuses a token below the greatest it has seen
//	})
//	if errors.Is(err, fasteners.ErrLost) {
//		log.Print(err)
//	}
//
// A lock between machines is not what a lock file is. A holder that etcd does not hear from loses
// the lock when the TTL of its session ([WithTTL]) is over, whether it has crashed or not. It is
// told before that: the context of its function is done. But no process can know that it is not
// about to be stopped, and what it has sent can be under way for any time. So what must not be
// written by two holders at a time must be protected where it is written: by the token
// ([fasteners.Token]), which is greater than that of every earlier holder that excludes this one,
// or, if it is in the same etcd, by [Commit].
//
// The tokens of a lock are revisions of etcd. They start over if etcd is set up anew, or restored
// from a snapshot without etcdutl's options --bump-revision and --mark-compacted.
//
// Lock methods return errors of type [*fs.PathError], with Op "acquire", "release", "commit" or
// "close", and the name of the lock as Path. Use [errors.Is] and [errors.As] to test for their
// cause.
package etcd
