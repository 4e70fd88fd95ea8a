// Package fasteners provides locks between processes: on a lock file, released by
// the operating system when a process dies. It is the Go counterpart of Python's
// fasteners, and excludes processes that use that.
//
// An [InterProcessLock] has one holder. An [InterProcessReaderWriterLock] has one
// writer or any number of readers. Whoever locks the same file takes part,
// whatever name it uses for the file and whichever of the two types:
//
//	var lock = fasteners.NewInterProcessLock("/var/lock/report.lock")
//
//	func report(ctx context.Context) error {
//		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
//		defer cancel()
//		return fasteners.WithLock(ctx, lock, func(ctx context.Context) error {
//			return writeReport(ctx) // nobody else is here
//		})
//	}
//
// # Goroutines
//
// A goroutine counts as a process. Locks may be used by any number of goroutines,
// through one value or several, and these exclude each other just as processes do.
// In a process they are served in order of arrival, readers that follow one another
// together. A lock belongs to nobody in particular: as with a [sync.Mutex], one
// goroutine may acquire it and another release it.
//
// No lock is reentrant: to acquire one that the same goroutine holds waits for that
// goroutine, which is for ever or until the context is done. Nor can a read lock be
// upgraded to a write lock.
//
// # Waiting
//
// A context bounds each wait, by a deadline or by cancellation. When it is done,
// acquire returns at once with an error that [errors.Is] finds to be
// [context.DeadlineExceeded] or [context.Canceled], and nothing is left behind.
//
// On Linux a waiter is woken when another process closes the lock file, which
// releasing it and dying both entail; on Windows when another process of the same
// session releases it by this package. Elsewhere, and where that gives no sign (for
// another host on a network file system, or a program that unlocks the file and keeps
// it open), it tries again from time to time: see [WithPollInterval]. With a context
// that cannot be done, such as [context.Background], the operating system does the
// waiting.
//
// Where waiters are woken, others do not pass one for ever because they are faster: once it
// was passed, and again 5 ms later, the processes that use this package stand back for it
// before they wait or try themselves, for up to 2 ms each time. On Linux it is then passed by
// each of them once at most; on Windows the system chooses whom a release wakes.
//
// Thousands of goroutines that wait for one lock file cost the process one descriptor of
// it and at most one thread. On Linux there can be two descriptors more for all lock
// files, while somebody waits and for a moment after that.
//
// # The lock file
//
// It is created where it is missing, with the directories above it, and is never
// written to, truncated or removed. Leave it in place. Should somebody remove or
// replace it, there are still no two holders of one name: acquire makes sure that the
// path names the very file that it has locked, and starts over when not. For a holder
// whose file is removed meanwhile the protection is gone, as others can lock the new
// one: release reports this as [ErrReplaced].
//
// The locks are advisory: they keep out only those who ask.
//
// On Windows an open file stays: to remove, rename or replace the lock file fails for as
// long as somebody holds the lock or waits for it. And there the locks are on the first
// byte, which, if the file has one, others cannot write meanwhile, nor read under an
// exclusive lock. Best leave the file empty; Python's InterProcessLock, which locks
// the byte behind the last one, takes part only then.
//
// # Errors
//
// Every error of a lock is an [*fs.PathError], with the path and with "acquire", "release"
// or "downgrade" as Op. Take it apart with [errors.Is] and [errors.As].
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
	"strings"
	"sync"
	"time"

	"github.com/go-fasteners/fasteners/internal/table"
)

var (
	// ErrNotAcquired is the cause of the error of a release by one who holds no
	// lock. Nothing has been changed.
	ErrNotAcquired = errors.New("lock is not acquired")

	// ErrReplaced is the cause of the error of a release that found the path to
	// name another file than the locked one, or none. The lock has been released.
	// But since the file was removed or replaced, others could lock a new one:
	// what was done under the lock may not have been done alone.
	ErrReplaced = errors.New("lock file was removed or replaced while locked")
)

// An InterProcessLock is a lock on a file that one goroutine of one process holds at
// a time. To an [InterProcessReaderWriterLock] on the same file it is a writer.
//
// It may be used by any number of goroutines, and must not be copied. It is not
// reentrant. When the process ends, however that happens, the operating system
// releases it.
//
// It is no [sync.Locker], as to acquire it can fail.
type InterProcessLock struct {
	handle
	holds holds
}

// NewInterProcessLock returns a lock on the file that path names. Nothing is opened or
// created before the lock is acquired.
//
// A relative path is looked up from the current directory, each time that the lock is
// acquired or released. Options and path are checked when it is acquired.
func NewInterProcessLock(path string, opts ...Option) *InterProcessLock {
	l := new(InterProcessLock)
	l.init(path, opts)
	return l
}

// Acquire waits until it has the lock, or ctx is done. A ctx that is done already wins
// over a lock that is free.
//
// When Acquire returns nil, the path names the very file that is locked, and no other
// goroutine or process will acquire the lock until [InterProcessLock.Release] or the
// end of this process. Any other outcome is an [*fs.PathError], with nothing held or
// left behind. Its cause is ctx.Err(), or what the operating system says about the
// file, or [fs.ErrInvalid] for a path or an option that can never work.
func (l *InterProcessLock) Acquire(ctx context.Context) error {
	return l.acquire(ctx, table.Exclusive, &l.holds)
}

// TryAcquire acquires the lock if nobody holds it or waits for it in this process, and
// reports whether it has. The error is as that of [InterProcessLock.Acquire]; that the
// lock is held by somebody else is none.
func (l *InterProcessLock) TryAcquire() (bool, error) {
	return l.try(table.Exclusive, &l.holds)
}

// Release gives back the lock that was acquired through l, by this goroutine or by
// another one.
//
// The cause of its error is [ErrNotAcquired] if there was none, and [ErrReplaced] if
// the lock has been released but its file was removed or replaced before. With any
// other error, too, the lock is not held any more.
func (l *InterProcessLock) Release() error {
	return l.release(&l.holds)
}

// Acquired reports whether the lock is held through l. When others use l, the answer
// may be out of date as soon as it is there.
func (l *InterProcessLock) Acquired() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.holds.any()
}

// A handle is what the two types of lock have in common: a path, options, and the
// way to the process's table of locks.
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

// Exists reports whether the lock file exists. It says nothing about who holds the
// lock: the file stays when the lock is released.
func (h *handle) Exists() bool {
	return exists(h.request.Path)
}

// check returns an error if nothing can be acquired through h.
func (h *handle) check(ctx context.Context) error {
	switch {
	case ctx == nil:
		return errNilContext
	case h.request.Path == "": // as in a lock that was not made by its constructor
		return errEmptyPath
	}
	return h.options.invalid
}

// acquire has a frame as small as it gets, as it is on the stack of everybody who waits.
func (h *handle) acquire(ctx context.Context, mode table.Mode, to *holds) error {
	if err := h.check(ctx); err != nil {
		return h.fail("acquire", err)
	}
	if h.options.logger != nil {
		return h.acquireAndLog(ctx, mode, to)
	}
	hold, err := locks.Acquire(ctx, &h.request, mode)
	return h.acquired(hold, err, to)
}

//go:noinline
func (h *handle) acquireAndLog(ctx context.Context, mode table.Mode, to *holds) error {
	start := time.Now()
	hold, err := locks.Acquire(ctx, &h.request, mode)
	h.log("acquire", err, slog.String("mode", mode.String()), slog.Duration("waited", time.Since(start)))
	return h.acquired(hold, err, to)
}

func (h *handle) acquired(hold table.Hold, err error, to *holds) error {
	if err != nil {
		return h.fail("acquire", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	to.add(hold)
	return nil
}

var (
	errNilContext = fmt.Errorf("nil context: %w", fs.ErrInvalid)
	errEmptyPath  = fmt.Errorf("empty path: %w", fs.ErrInvalid)
)

func (h *handle) try(mode table.Mode, to *holds) (bool, error) {
	if err := h.check(context.Background()); err != nil {
		return false, h.fail("acquire", err)
	}
	hold, ok, err := locks.Try(&h.request, mode)
	if h.options.logger != nil {
		h.log("try to acquire", err, slog.String("mode", mode.String()), slog.Bool("acquired", ok))
	}
	if !ok {
		return false, h.fail("acquire", err)
	}
	return true, h.acquired(hold, nil, to)
}

func (h *handle) release(from *holds) error {
	h.mu.Lock()
	hold, acquired := from.take(h.request.Path)
	h.mu.Unlock()
	if !acquired {
		return h.fail("release", ErrNotAcquired)
	}
	named, err := hold.Release(h.request.Path)
	switch {
	case !named && err == nil:
		err = ErrReplaced
	case !named:
		err = errors.Join(ErrReplaced, err)
	}
	if h.options.logger != nil {
		h.log("release", err)
	}
	return h.fail("release", err)
}

// holds are the grants of one kind through one handle, those on one file counted. Even of exclusive
// ones there can be several, on different files, if the lock file was replaced in between.
type holds struct{ first *grants }

type grants struct {
	on   table.Hold
	n    int // 0 in the first only, which stays for the next time
	next *grants
}

func (h holds) any() bool { return h.first != nil && h.first.n > 0 }

func (h *holds) add(hold table.Hold) {
	p := &h.first
	for ; *p != nil && (*p).n > 0; p = &(*p).next {
		if (*p).on == hold {
			(*p).n++
			return
		}
	}
	if *p == nil {
		*p = new(grants)
	}
	(*p).on, (*p).n = hold, 1
}

// take takes one out. They are not told apart, so one on a file that path does not name any more
// goes first: then as many on the new file stay as there can be holders who rely on them.
func (h *holds) take(path string) (table.Hold, bool) {
	if !h.any() {
		return table.Hold{}, false
	}
	p := &h.first
	for (*p).next != nil && (*p).on.Named(path) {
		p = &(*p).next
	}
	g := *p
	hold := g.on
	if g.n--; g.n == 0 {
		g.on = table.Hold{}
		if g != h.first || g.next != nil {
			*p = g.next
		}
	}
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
var locks = table.New(new(system), linger)

// Open opens the file for readers and writers of this process alike if it may, and else for
// what is asked for now: that needs only the one permission.
func (s *system) Open(path string, mode table.Mode) (table.File, table.ID, error) {
	f, id, err := s.open(path, table.Shared|table.Exclusive)
	if isPermission(err) {
		if f, id, err := s.open(path, mode); err == nil {
			return f, id, nil
		}
	}
	return f, id, err
}

// Create is for a file that was not there a moment ago. By now somebody else may have made it,
// and allow less.
func (s *system) Create(path string, mode table.Mode, perm fs.FileMode) (table.File, table.ID, error) {
	f, id, err := s.create(path, perm)
	if errors.Is(err, fs.ErrNotExist) {
		f, id, err = s.createBelow(path, perm)
	}
	if isPermission(err) {
		if f, id, err := s.Open(path, mode); err == nil {
			return f, id, nil
		}
	}
	return f, id, err
}

// createBelow makes the directories, too.
func (s *system) createBelow(path string, perm fs.FileMode) (f table.File, id table.ID, err error) {
	for range 100 {
		failed := path
		if err = mkdirAll(filepath.Dir(path), 0o777); err == nil {
			f, id, err = s.create(path, perm)
			if !errors.Is(err, fs.ErrNotExist) {
				return f, id, err
			}
		} else if e, ok := err.(*fs.PathError); ok && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist)) {
			failed = e.Path
		} else {
			return nil, table.ID{}, err
		}
		// Somebody may remove a directory that is still empty, and be faster each time. With the
		// directory in its place it does not help to try for ever: the path can be a symbolic
		// link into one that is missing, or the current directory have been removed. And a drive
		// that is missing, or a host, nobody can make.
		dir := filepath.Dir(failed)
		if _, statErr := os.Stat(dir); errors.Is(statErr, fs.ErrNotExist) {
			if dir == filepath.Dir(dir) {
				break
			}
			return nil, table.ID{}, table.ErrAgain
		}
	}
	return nil, table.ID{}, err
}

var mkdirAll = os.MkdirAll // a variable for tests

// An Option changes how a lock behaves. The same options serve both types of lock.
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

// WithPollInterval sets the times between tries for a waiter that the operating system
// tells nothing: delay, longer by delay after each, at most maxDelay. Each is then
// shortened by a random part, of up to a half. The default, which zero stands for, is
// 10 ms and 100 ms. At first, and after each sign that the lock may be free, the tries
// come earlier, from 1 ms on, or up to 12 ms where sign after sign was in vain. Where the
// operating system does tell of a release by this package or Python's fasteners, and of the
// death of a holder, which on Linux it does for ext4, XFS, Btrfs, tmpfs and other local file
// systems while the user has an inotify instance left, the tries are a backstop: a hundred
// times as far apart while the lock is held by this package, and ten times else.
//
// These tries also find out what makes no event: that a directory above the lock file or a
// symbolic link to it was replaced, or that a process has released the lock and was stopped
// within the millisecond after which it closes the file.
//
// A maxDelay below delay counts as delay, and more than a day as a day. With a negative one of
// either acquiring the lock fails, with the cause [fs.ErrInvalid].
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

// WithFileMode sets the permissions of a lock file that has to be created, before
// umask. The default is 0666. Those of an existing file are never changed.
func WithFileMode(perm fs.FileMode) Option {
	return option(func(o *options) { o.Perm = perm.Perm() })
}

// WithReaderPreference lets readers pass a writer that waits in another process, as Python's
// fasteners does: new ones get in for as long as others are inside, and the writer may wait for
// ever. Without it a writer that waits for readers keeps new ones out. In a process it makes no
// difference.
func WithReaderPreference() Option {
	return option(func(o *options) { o.ReaderPreference = true })
}

// WithLogger makes the lock log each acquire, try and release, at [slog.LevelDebug]. A
// nil logger, which is the default, logs nothing.
func WithLogger(logger *slog.Logger) Option {
	return option(func(o *options) { o.logger = logger })
}
