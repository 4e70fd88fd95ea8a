package fasteners

import (
	"cmp"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/go-fasteners/fasteners/internal/locktable"
)

// An Option changes how a lock behaves. Both types of lock take the same options. A nil Option
// is ignored.
type Option interface{ apply(*options) }

type option func(*options)

func (f option) apply(o *options) { f(o) }

type options struct {
	locktable.Options
	table       *locktable.Table // that has the lock
	timeout     time.Duration    // or 0
	noticeAfter time.Duration
	notice      func([]Holder) // or nil
	logger      *slog.Logger   // or nil
	invalid     error          // what is wrong with the options or the path
}

// watched reports whether a wait needs more than its context.
func (o *options) watched() bool { return o.timeout > 0 || o.notice != nil || o.logger != nil }

// defaults are shared by all handles that are made without options: where many goroutines wait,
// each byte of a handle counts.
var defaults = options{
	Options: locktable.Options{
		Delay:    10 * time.Millisecond,
		MaxDelay: 100 * time.Millisecond,
	},
	table: locks,
}

// invalid returns an option that makes every acquire fail.
func invalid(why string) Option {
	return option(func(o *options) { o.invalid = fmt.Errorf("%s: %w", why, fs.ErrInvalid) })
}

// WithPollInterval sets how often a waiter tries again where the operating system does not do the
// waiting. The first intervals are shorter than delay; the next one is delay, and each later one is
// longer by delay, up to maxDelay. Each is shortened at random by up to half. Zero stands for the
// default, which is 10 ms for delay and 100 ms for maxDelay.
//
// On Linux, waiters do not poll on file systems that are known to be local (ext4, XFS, Btrfs,
// tmpfs, overlay and others, as /proc tells), except where a wait could not be ended, or where
// threads are short. A wait is ended by SIGURG, so waiters poll in a program that ignores it,
// has a C handler with SA_RESETHAND for it, or may not call tgkill(2). Waits for different
// lock files take a thread each, at most 256, and at most an eighth of what [debug.SetMaxThreads],
// RLIMIT_NPROC and the cgroup allow; the others poll. A program must not begin to ignore SIGURG,
// or to refuse tgkill, while it waits: the wait would outlast its context. Waiters poll on network
// file systems, and on other systems than Linux. On Windows polling is a fallback, for holders
// that do not use this package, belong to another session, or exit without releasing the lock.
//
// A maxDelay below delay counts as delay, and more than a day as a day. If one of them is negative,
// acquiring the lock fails with [fs.ErrInvalid].
func WithPollInterval(delay, maxDelay time.Duration) Option {
	if delay < 0 || maxDelay < 0 {
		return invalid("negative poll interval")
	}
	return option(func(o *options) {
		const longest = 24 * time.Hour // so that multiples of it do not overflow
		delay := min(cmp.Or(delay, defaults.Delay), longest)
		maxDelay := min(cmp.Or(maxDelay, defaults.MaxDelay), longest)
		o.Delay, o.MaxDelay = delay, max(delay, maxDelay)
	})
}

// WithFileMode sets the permissions of a lock file that has to be created: it gets exactly perm,
// whatever the umask and the default ACL of the directory, so that users can share a lock:
// WithFileMode(0o666) lets everybody lock the file. Only the bits of [fs.ModePerm] count. Without
// this option a new file has 0666, less the umask, which usually lets others only read it: they get
// an error that wraps [fs.ErrPermission].
//
// The permissions of an existing file are never changed, nor are directories that are created
// affected. The option makes no difference on file systems without permissions, nor on Windows,
// where a new file gets those that its directory gives it.
//
// If perm does not let the owner of the file read and write it (0600), acquiring the lock fails
// with [fs.ErrInvalid].
func WithFileMode(perm fs.FileMode) Option {
	if perm&0o600 != 0o600 {
		return invalid(fmt.Sprintf("file mode %04o, with which the owner cannot open the file", perm.Perm()))
	}
	return option(func(o *options) { o.Perm = perm.Perm() })
}

// WithReaderPreference lets new readers of other processes overtake a writer that acquires this
// lock and waits for earlier readers, as Python's fasteners does. The writer may starve.
// Without this option, a writer that waits for readers keeps new ones waiting. It makes no
// difference to readers, nor within a process.
func WithReaderPreference() Option {
	return option(func(o *options) { o.ReaderPreference = true })
}

// WithTimeout bounds each wait for the lock: an acquire that has waited for d fails with an
// error that wraps [context.DeadlineExceeded] and a [HeldError]. Unlike a deadline of the
// context, it does not bound the function that [WithLock] calls. Zero is no timeout. If d is
// negative, acquiring the lock fails with [fs.ErrInvalid].
func WithTimeout(d time.Duration) Option {
	if d < 0 {
		return invalid("negative timeout")
	}
	return option(func(o *options) { o.timeout = d })
}

// WithWaitNotice makes each wait for the lock that takes longer than after call notice, with
// those who hold the lock as far as they are known, and again at growing distances as long as
// the wait goes on. The distances double, from after, or a second if that is longer, up to a
// minute, or after if that is longer.
//
// It calls notice in a goroutine of its own, at most one call at a time for each wait. What
// notice does cannot delay the lock: Acquire does not wait for a call that has begun, and
// begins none once the wait is over. A nil notice is ignored. If after is negative, acquiring
// the lock fails with [fs.ErrInvalid].
func WithWaitNotice(after time.Duration, notice func([]Holder)) Option {
	if after < 0 {
		return invalid("negative time before a notice")
	}
	return option(func(o *options) {
		o.noticeAfter, o.notice = after, notice
	})
}

// WithLogger makes the lock log every acquire, try, release and downgrade at [slog.LevelDebug],
// with its outcome, also if it fails. At [slog.LevelInfo] it logs waits that take longer than a
// second, with the holders of the lock, and again at growing distances; or at the times of
// [WithWaitNotice] if there is a notice. A nil logger, which is the default, logs nothing.
func WithLogger(logger *slog.Logger) Option {
	return option(func(o *options) { o.logger = logger })
}

// WithFile makes the lock belong to the open file description of f (open(2)) instead of one
// that is opened by path. Processes that have inherited f hold the lock together. It is for a
// process that is given an open file to lock, as by a shell:
//
//	exec 9>report.lock
//	fasteners run --fd 9 # the shell holds the lock until it closes descriptor 9 or exits
//
// The lock is released when one of the processes calls Release, or when the last of them has
// closed the file or exited. The path of the lock is used only in errors, and no error is
// [ErrReplaced]. A file must be open for reading to be locked by a reader, and for writing to
// be locked otherwise, or the error wraps [fs.ErrPermission]. It must stay open as long as the
// lock is used.
//
// A writer that waits for readers does not keep new readers from acquiring the lock: see
// [WithReaderPreference]. Locks that are made with one Option exclude each other. Those of two
// Options with the same open file description do not, as they have the same owner: an acquire
// converts the lock that they hold to its own mode. An acquire that fails leaves it as it was.
//
// Only Linux has such locks, on most file systems. Elsewhere acquiring the lock fails with
// [errors.ErrUnsupported]. A nil f is ignored.
func WithFile(f *os.File) Option {
	if f == nil {
		return option(func(*options) {})
	}
	t := locktable.New(&given{f: f}, idleTimeout) // for all locks that are made with this Option
	return option(func(o *options) { o.table = t })
}
