// Package postgres provides the locks of package fasteners between machines: on
// advisory locks of a PostgreSQL server, version 14 or later.
//
//	config, err := pgx.ParseConfig(url)
//	…
//	db := postgres.New(config)
//	defer db.Close(ctx)
//	lock := postgres.NewLock(db, "report")
//
//	err = fasteners.WithLock(ctx, lock, func(ctx context.Context) error {
//		// ctx ends if the lock is lost, and the transaction cannot commit without it.
//		return postgres.InTx(ctx, func(tx pgx.Tx) error {
//			_, err := tx.Exec(ctx, "UPDATE report SET total = total + 1")
//			return err
//		})
//	})
//
// # What holds
//
// A [Lock] has one holder, and a [ReaderWriterLock] either one writer or any
// number of readers, among all goroutines of all programs that use the same
// name in the same database. The server keeps the waiters in a queue, in order
// of arrival, and tells the next one when the lock is released: nobody polls.
//
// A lock is a lease. The server releases it when it has heard nothing from its
// holder for the TTL ([WithTTL]): its process was killed or stopped, or the
// network is down. The context of a hold is done a margin before that
// ([WithMargin]), with [fasteners.ErrLost] as its cause. After that, a holder
// that goes on can do harm. Where that matters, use one of these:
//
//   - [InTx]: a transaction in the session that holds the lock. It cannot be
//     committed without it.
//   - The fencing token of the context ([fasteners.Token]): the resource has to
//     refuse a token below the greatest that it has seen.
//
// The server also ends the session, and so releases the lock, before the TTL is
// over if it loses the connection (a TCP reset, a proxy or a NAT gateway that
// restarts), or if an operator tells it to (pg_terminate_backend). The context
// of the hold is then done as soon as this process notices: usually within
// milliseconds, but it can be later than when the next holder has the lock; and
// if the network is down as well, as late as the TTL. After a restart of the
// server, or a crash of one of its processes, no lock is granted until all
// holders from before have given up.
//
// # Failover
//
// Advisory locks are not replicated. A standby that becomes the primary server
// grants all locks anew, while their holders still take themselves for such;
// and with asynchronous replication, the sequence of the tokens can go back.
// Then only InTx helps, since it is the old server, if anybody, that commits
// the transaction. On a standby, acquiring a lock fails.
//
// # Connections
//
// The goroutines of one process that wait for one lock share a connection,
// however many they are. Each lock that is held or waited for needs one, and it
// cannot be behind a connection pooler such as PgBouncer, unless that pools
// sessions ([WithSessionPooler]).
//
// When a goroutine releases a lock, the server hands it on: if other processes
// wait, to the first of these. Each process asks for one goroutine at a time,
// so processes take turns, whatever the number of their goroutines. Within a
// process, waiters are served in order of arrival, and consecutive readers
// together.
//
// While somebody waits for a lock, VACUUM cannot remove what has been deleted
// from the database since that wait began. If waits can take hours, use a
// database of their own for the locks.
package postgres
