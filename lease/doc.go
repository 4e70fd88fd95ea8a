// Package lease has what an engine of locks between machines needs besides its protocol: packages
// etcd and postgres of this project are built on it, and a third one can be. An engine grants
// locks that are lost when the other side, here the server, has heard nothing from this process
// for some time, the TTL.
//
//   - [Engine] says how to acquire a lock, and [Hold] how to release it. That is all that an engine has
//     to write.
//   - [Lease] knows until when locks are surely held, by a clock that counts suspension ([Now]), and
//     ends the contexts of their holds in time.
//   - [Handle] is in each value of a lock type, and does what [fasteners.Locker] and its siblings
//     require beside exclusion: the list of holds, contexts that end with the hold and have its token,
//     timeouts, logs, and errors that tell which lock they are of.
//   - [ContextError], [WithCause] and [PathError] make errors as all locks of this project have them.
//
// The methods of a lock type have one line each, and its documentation:
//
//	type Lock struct{ handle lease.Handle[*hold] }
//
//	func NewLock(c *Client, name string) *Lock {
//		return &Lock{lease.Handle[*hold]{Engine: c.engine(), Name: name}}
//	}
//
//	func (l *Lock) Acquire(ctx context.Context) error { return l.handle.Acquire(ctx, lease.Exclusive) }
//	func (l *Lock) Release() error                    { return l.handle.Release(lease.Exclusive) }
//
//	func (l *Lock) Hold(ctx context.Context) (context.Context, func() error, error) {
//		return l.handle.Hold(ctx, lease.Exclusive)
//	}
//
// The example has all of an engine. Package lockertest tests whether it does what it must.
package lease
