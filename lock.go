// Package fasteners provides cross-process locks backed by a lock file. It is the Go counterpart of
// Python's fasteners: programs that use either exclude each other.
//
// An [InterProcessLock] has one holder. An [InterProcessReaderWriterLock] has either one writer or any
// number of readers. Both types exclude each other on the same file, under whatever path it is opened. If
// a holder exits, for whatever reason, the operating system releases its lock.
//
//	var lock = fasteners.NewInterProcessLock("/run/report/lock")
//
//	func report(ctx context.Context) error {
//		waitCtx, cancel := context.WithTimeout(ctx, 5*time.Second) // bounds the wait only
//		defer cancel()
//		return fasteners.WithLock(waitCtx, lock, func(context.Context) error {
//			return writeReport(ctx)
//		})
//	}
//
// # The lock file
//
// Use a separate file, such as data.json.lock for data.json, and do not open it in any other way. On
// systems other than Linux the locks of this package belong to the process, and closing any descriptor of
// the file, as os.ReadFile does, drops them. On Windows a locked file cannot be read through another
// handle.
//
// The file is created if it does not exist, along with its parent directories. It is never written,
// truncated or removed; leave it in place. Acquire verifies that the path still names the file that it
// has locked, and retries if not. If the file is removed or replaced while the lock is held, another
// process can lock the new file at the same time; Release reports this with [ErrReplaced].
//
// Locks are advisory: they exclude only programs that use them. They are those of fcntl(2) on POSIX
// systems, and of LockFileEx on Windows. Programs that use flock(2) are not excluded. Whoever may read
// the lock file can hold a read lock, and so keep writers out.
//
// On Windows the lock file cannot be removed, renamed or replaced while the lock is held or waited for.
// The locks are on its first byte there. Leave the file empty: Python's InterProcessLock, which locks the
// byte behind the last one, takes part only then.
//
// # Goroutines
//
// Goroutines exclude each other as processes do, whether they share a lock value or not. Within a
// process, waiters are served in order of arrival, consecutive readers together. As with a [sync.Mutex],
// one goroutine may release a lock that another acquired. Locks are not reentrant: acquiring a lock that
// the calling goroutine already holds blocks until the context is done. A read lock cannot be upgraded.
//
// # Waiting
//
// Every wait is bounded by a context. When the context is done, Acquire returns immediately, with an
// error for which [errors.Is] reports [context.DeadlineExceeded] or [context.Canceled], and leaves
// nothing behind. On Linux the kernel does the waiting, on file systems known to be local: it grants the
// lock as soon as the holder releases it or exits. On Windows a release wakes waiters of the same
// session. Otherwise waiters poll: see [WithPollInterval]. In any case a waiter finds within a second or
// so that its file was removed or replaced.
//
// Thousands of goroutines that wait for one lock file cost the process one descriptor and at most one
// thread.
//
// # Errors
//
// Errors of lock methods are of type [*fs.PathError], with Op "acquire", "release" or "downgrade". Use
// [errors.Is] and [errors.As] to test for their cause.
package fasteners

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-fasteners/fasteners/internal/table"
)

var (
	// ErrNotAcquired is wrapped by the error returned when releasing or downgrading a lock that is not
	// held. Nothing has changed then.
	ErrNotAcquired = errors.New("lock is not acquired")

	// ErrReplaced is wrapped by the error returned when releasing a lock whose file was removed or
	// replaced while it was held, or which the path does not name for another reason. The lock has been
	// released, but another process may have held a lock on the new file at the same time.
	ErrReplaced = errors.New("lock file was removed or replaced while locked")
)

// An InterProcessLock is a lock on a file with one holder: one goroutine of one process. To an
// [InterProcessReaderWriterLock] on the same file it is a writer.
//
// It may be used by any number of goroutines, and must not be copied. It is not reentrant. When the
// process exits, for whatever reason, the operating system releases the lock.
//
// It does not implement [sync.Locker], because acquiring it can fail.
type InterProcessLock struct {
	handle
	holds holds
}

// NewInterProcessLock returns a lock on the file that path names. It opens and creates nothing: the
// options and the path are checked when the lock is acquired.
//
// A relative path is relative to the directory that is current when the lock is acquired or released.
func NewInterProcessLock(path string, opts ...Option) *InterProcessLock {
	l := new(InterProcessLock)
	l.init(path, opts)
	return l
}

// Acquire acquires the lock, waiting until it is available or ctx is done. If ctx is already done,
// Acquire fails even if the lock is free.
//
// If Acquire returns nil, the path names the locked file, and no other goroutine or process acquires the
// lock before [InterProcessLock.Release]. Otherwise it returns an [*fs.PathError], and the lock is not
// held. The error wraps ctx.Err(), the error of the operating system, or [fs.ErrInvalid] if the path or
// an option is invalid.
func (l *InterProcessLock) Acquire(ctx context.Context) error {
	return l.acquire(ctx, table.Exclusive, &l.holds)
}

// TryAcquire acquires the lock without waiting and reports whether it succeeded. It returns false and a
// nil error if the lock is held, or if a goroutine of this process is waiting for it.
func (l *InterProcessLock) TryAcquire() (bool, error) {
	return l.try(table.Exclusive, &l.holds)
}

// Release releases the lock, which this or another goroutine acquired through l.
//
// Its error wraps [ErrNotAcquired] if the lock was not held, and [ErrReplaced] if it was released but its
// file had been removed or replaced. Whatever the error, the lock is no longer held.
func (l *InterProcessLock) Release() error {
	return l.release(&l.holds)
}

// Acquired reports whether the lock is held through l. The result may be stale by the time it is returned
// if other goroutines use l.
func (l *InterProcessLock) Acquired() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.holds) > 0
}

// A handle is what the two types of lock have in common: a path, options, and the way to the process's
// table of locks.
type handle struct {
	request table.Request
	options *options
	mu      sync.Mutex // protects the holds of the lock
}

func (h *handle) init(path string, opts []Option) {
	h.options = &defaults
	if strings.Contains(path, "\x00") {
		opts = append(opts[:len(opts):len(opts)], invalid("NUL byte in path"))
	}
	if len(opts) > 0 {
		own := defaults
		for _, o := range opts {
			o.apply(&own)
		}
		h.options = &own
	}
	h.request = table.Request{Path: path, Options: &h.options.Options}
}

// Path returns the path that the lock was made with.
func (h *handle) Path() string { return h.request.Path }

// Exists reports whether the lock file exists. It says nothing about who holds the lock: the file stays
// when the lock is released.
func (h *handle) Exists() bool {
	_, err := os.Stat(h.request.Path)
	return err == nil
}

// check returns an error if nothing can be acquired through h.
func (h *handle) check(ctx context.Context) error {
	switch {
	case ctx == nil:
		return fmt.Errorf("nil context: %w", fs.ErrInvalid)
	case h.request.Path == "": // as in a lock that was not made by its constructor
		return fmt.Errorf("empty path: %w", fs.ErrInvalid)
	}
	return h.options.invalid
}

// acquire has a small frame, since it is on the stack of every goroutine that waits.
func (h *handle) acquire(ctx context.Context, mode table.Mode, to *holds) error {
	if err := h.check(ctx); err != nil {
		return h.fail("acquire", err)
	}
	var start time.Time
	if h.options.logger != nil {
		start = time.Now()
	}
	hold, err := locks.Acquire(ctx, &h.request, mode)
	if h.options.logger != nil {
		h.logAcquire(mode, start, err)
	}
	if err != nil {
		return h.fail("acquire", err)
	}
	h.add(to, hold)
	return nil
}

//go:noinline
func (h *handle) logAcquire(mode table.Mode, start time.Time, err error) {
	h.log("acquire", err, slog.String("mode", mode.String()), slog.Duration("waited", time.Since(start)))
}

func (h *handle) add(to *holds, hold table.Hold) {
	h.mu.Lock()
	*to = append(*to, hold)
	h.mu.Unlock()
}

func (h *handle) try(mode table.Mode, to *holds) (bool, error) {
	if err := h.check(context.Background()); err != nil {
		return false, h.fail("acquire", err)
	}
	hold, ok, err := locks.TryAcquire(&h.request, mode)
	if h.options.logger != nil {
		h.log("try to acquire", err, slog.String("mode", mode.String()), slog.Bool("acquired", ok))
	}
	if !ok {
		return false, h.fail("acquire", err)
	}
	h.add(to, hold)
	return true, nil
}

func (h *handle) release(from *holds) error {
	h.mu.Lock()
	hold, acquired := from.take(h.request.Path)
	h.mu.Unlock()
	if !acquired {
		return h.fail("release", ErrNotAcquired)
	}
	named, err := hold.Release(h.request.Path)
	if !named {
		err = errors.Join(ErrReplaced, err)
	}
	if h.options.logger != nil {
		h.log("release", err)
	}
	return h.fail("release", err)
}

// holds are the holds of one kind that were acquired through one handle, oldest first. Even of exclusive
// ones there can be several, on different files, if the lock file was replaced meanwhile.
type holds []table.Hold

// take takes one out. Which of the holders releases is not known, so a hold on a file that path does not
// name any more goes first: then as many holds stay on the new file as there may be holders that rely on
// them.
func (h *holds) take(path string) (table.Hold, bool) {
	n := len(*h)
	if n == 0 {
		return table.Hold{}, false
	}
	last := (*h)[n-1] // mostly all are equal to it
	i := slices.IndexFunc(*h, func(hold table.Hold) bool { return hold != last && !hold.Named(path) })
	if i < 0 {
		i = n - 1
	}
	hold := (*h)[i]
	*h = slices.Delete(*h, i, i+1)
	return hold, true
}

// fail returns err as the user sees it, and nil if it is nil.
//
//go:noinline
func (h *handle) fail(op string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: h.request.Path, Err: err}
}

func (h *handle) log(what string, err error, attrs ...slog.Attr) {
	attrs = append(attrs, slog.String("path", h.request.Path))
	if err != nil {
		attrs = append(attrs, slog.Any("error", err))
	}
	h.options.logger.LogAttrs(context.Background(), slog.LevelDebug, "fasteners: "+what, attrs...)
}

// locks has all locks of this process.
var locks = table.New(new(system), idleTimeout)

// Open opens the file for readers and writers of this process alike if possible. Otherwise it opens it
// for mode, which needs only one of the two permissions.
func (s *system) Open(path string, mode table.Mode) (table.File, table.ID, error) {
	f, id, err := s.open(path, table.Shared|table.Exclusive)
	if mayPermitLess(err) {
		if f, id, err := s.open(path, mode); err == nil {
			return f, id, nil
		}
	}
	return f, id, err
}

// Create is for a file that did not exist a moment ago. By now another process may have created it, with
// fewer permissions.
func (s *system) Create(path string, mode table.Mode, perm fs.FileMode) (table.File, table.ID, error) {
	f, id, err := s.create(path, perm)
	if errors.Is(err, fs.ErrNotExist) {
		f, id, err = s.createBelow(path, perm)
	}
	if mayPermitLess(err) {
		if f, id, err := s.Open(path, mode); err == nil {
			return f, id, nil
		}
	}
	return f, id, err
}

// createBelow creates the directories, too. While another process removes them, as long as they are
// empty, its error is table.ErrRetry.
func (s *system) createBelow(path string, perm fs.FileMode) (table.File, table.ID, error) {
	failed := path
	err := mkdirAll(filepath.Dir(path), 0o777)
	if err == nil {
		var f table.File
		var id table.ID
		if f, id, err = s.create(path, perm); !errors.Is(err, fs.ErrNotExist) {
			return f, id, err
		}
	} else if e, ok := err.(*fs.PathError); ok && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist)) {
		failed = e.Path
	} else {
		return nil, table.ID{}, err
	}
	if canBeCreated(failed) {
		err = fmt.Errorf("%w: %w", table.ErrRetry, err)
	}
	return nil, table.ID{}, err
}

var mkdirAll = os.MkdirAll // a variable for tests

// canBeCreated reports whether path, which could not be created for want of something, may be the next
// time. It cannot if it is a symbolic link to something in a missing directory, if the current directory
// has been removed, or on a drive or host that does not exist.
func canBeCreated(path string) bool {
	if fi, err := os.Lstat(path); err == nil && fi.Mode()&fs.ModeSymlink != 0 {
		return false
	}
	dir := filepath.Dir(path)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return dir != filepath.Dir(dir)
	}
	_, err := os.Getwd()
	return err == nil || filepath.IsAbs(path)
}

// An Option changes how a lock behaves. Both types of lock take the same options.
type Option interface{ apply(*options) }

type option func(*options)

func (f option) apply(o *options) { f(o) }

// options are what the user has a choice of.
type options struct {
	table.Options
	logger  *slog.Logger // or nil
	invalid error        // what is wrong with the options or the path
}

// defaults are shared by all handles that are made without options: where many wait, each byte of a
// handle counts.
var defaults = options{Options: table.Options{
	Delay:    10 * time.Millisecond,
	MaxDelay: 100 * time.Millisecond,
	Perm:     0o666,
}}

// invalid makes each acquire fail.
func invalid(why string) Option {
	return option(func(o *options) { o.invalid = fmt.Errorf("%s: %w", why, fs.ErrInvalid) })
}

// WithPollInterval sets how often a waiter tries again where the operating system does not do the
// waiting. The first intervals are shorter than delay; the next one is delay, and each later one is
// longer by delay, up to maxDelay. Each is shortened at random by up to half. Zero stands for the
// default, which is 10 ms for delay and 100 ms for maxDelay.
//
// Waiters do not poll on Linux, on file systems that are known to be local (ext4, XFS, Btrfs, tmpfs,
// overlay and others, as /proc tells), unless the program waits for more than 256 lock files at once or
// ignores SIGURG. It must not begin to ignore that while it waits: the wait would outlast its context.
// They do on network file systems, and on other systems. On Windows polling is a fallback, for holders
// that do not use this package, are of another session, or exit without a release.
//
// A maxDelay below delay counts as delay, and more than a day as a day. If one of them is negative,
// acquiring the lock fails with [fs.ErrInvalid].
func WithPollInterval(delay, maxDelay time.Duration) Option {
	if delay < 0 || maxDelay < 0 {
		return invalid("negative poll interval")
	}
	return option(func(o *options) {
		const longest = 24 * time.Hour // so that no multiple of it is too much
		delay := min(cmp.Or(delay, defaults.Delay), longest)
		maxDelay := min(cmp.Or(maxDelay, defaults.MaxDelay), longest)
		o.Delay, o.MaxDelay = delay, max(delay, maxDelay)
	})
}

// WithFileMode sets the permissions of a lock file that has to be created, before umask. The default is
// 0666. The permissions of an existing file are never changed.
func WithFileMode(perm fs.FileMode) Option {
	return option(func(o *options) { o.Perm = perm.Perm() })
}

// WithReaderPreference lets new readers acquire the lock while a writer in another process waits for
// earlier readers, as Python's fasteners does. The writer may starve. Without it a writer that waits for
// readers keeps new ones out. Within a process it makes no difference.
func WithReaderPreference() Option {
	return option(func(o *options) { o.ReaderPreference = true })
}

// WithLogger makes the lock log each acquire, try and release at [slog.LevelDebug], but not those that
// fail before they get to the lock file. A nil logger, which is the default, logs nothing.
func WithLogger(logger *slog.Logger) Option {
	return option(func(o *options) { o.logger = logger })
}
