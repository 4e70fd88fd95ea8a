// Package fasteners provides cross-process locks backed by a lock file. It is the Go counterpart of
// Python's fasteners: programs that use either exclude each other.
//
// An [InterProcessLock] has one holder. An [InterProcessReaderWriterLock] has either one writer
// or any number of readers. The two types exclude each other on the same file, under whatever
// path it is opened. If a holder exits, for whatever reason, the operating system releases its
// lock.
//
//	var lock = fasteners.NewInterProcessLock("/run/report/lock", fasteners.WithTimeout(5*time.Second))
//
//	func report(ctx context.Context) error {
//		err := fasteners.WithLock(ctx, lock, writeReport)
//		var held *fasteners.HeldError
//		if errors.As(err, &held) {
//			log.Print(err) // … held by process 4711 (backup) for 12s: context deadline exceeded
//		}
//		return err
//	}
//
// # The lock file
//
// Use a separate file, such as data.json.lock for data.json, and do not open it in any other
// way. On systems other than Linux the locks of this package belong to the process, and closing
// any descriptor of the file, as os.ReadFile does, drops them. On Windows a locked file cannot
// be read through another handle. Replacing a locked file by renaming another over it defeats
// the lock.
//
// The file is created if it does not exist, along with its parent directories, but not as the
// target of a symbolic link. [WithFileMode] lets other users lock it. It is never written,
// truncated or removed; leave it in place. Acquire verifies that the path still names
// the file that it has locked, and retries if not. If the file is removed or replaced while the
// lock is held, another process can lock the new file at the same time; Release reports this
// with [ErrReplaced]. Only a holder may remove the file, as the last thing before it releases
// the lock.
//
// Locks are advisory: they exclude only programs that use them. They are locks of fcntl(2) on
// POSIX systems, and of LockFileEx on Windows. Programs that use flock(2), such as flock(1),
// are not excluded. Any process that may read the lock file can hold a read lock, and so keep
// writers waiting.
//
// On Windows the lock file cannot be removed, renamed or replaced while the lock is held or
// waited for. The locks are on its first byte. Leave the file empty there: Python's
// InterProcessLock locks the byte behind the last one, and takes part only if that is the
// first.
//
// # Goroutines
//
// Goroutines exclude each other as processes do, whether they share a lock value or not. Within
// a process, waiters are served in order of arrival, and consecutive readers together. As with
// a [sync.Mutex], one goroutine may release a lock that another acquired. Locks are not
// reentrant: acquiring a lock that the calling goroutine already holds blocks until the context
// is done. A read lock cannot be upgraded.
//
// # Waiting
//
// Every wait is bounded by a context, and by [WithTimeout], which bounds nothing but the wait.
// When the context is done, Acquire returns immediately, with an error for which [errors.Is]
// reports [context.DeadlineExceeded] or [context.Canceled], and leaves nothing behind. A
// [HeldError] in it tells who holds the lock; [WithWaitNotice] tells while the wait goes on.
//
// On Linux the kernel does the waiting, on file systems known to be local: it grants the lock
// as soon as the holder releases it or exits. On Windows a release wakes waiters of the same
// session. Otherwise waiters poll: see [WithPollInterval]. In any case a waiter notices within
// about a second that its file was removed or replaced.
//
// Thousands of goroutines that wait for one lock file cost the process one descriptor and at
// most one thread.
//
// Waiting writers are not starved by readers (but see [WithReaderPreference]), and waiting
// processes are not starved by busy ones where the kernel does the waiting: docs/fairness.md
// has the exact rules.
//
// # Errors
//
// Lock methods return errors of type [*fs.PathError], with Op "acquire", "release",
// "downgrade", "duplicate" or "holders", or errors that wrap one, if its path has characters
// that are not safe to print. Use [errors.Is] and [errors.As] to test for their cause. The text
// of an error is safe to print: others may have chosen the names of files and programs.
package fasteners
