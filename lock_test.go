//go:build unix || windows

package fasteners_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
)

// lockPath returns the name of a lock file that does not exist yet.
func lockPath(t testing.TB) string {
	return filepath.Join(t.TempDir(), "lock")
}

func TestAcquireAndRelease(t *testing.T) {
	path := filepath.Join(t.TempDir(), "some", "directories", "lock")
	l := fasteners.NewInterProcessLock(path)
	check := func(when string, exists, acquired bool) {
		t.Helper()
		if l.Exists() != exists || l.Acquired() != acquired || l.Path() != path {
			t.Errorf("%s: Exists %v, Acquired %v, Path %s; want %v, %v, %s",
				when, l.Exists(), l.Acquired(), l.Path(), exists, acquired, path)
		}
	}
	check("at first", false, false)
	for range 3 {
		must(t, l.Acquire(background))
		check("acquired", true, true)
		must(t, l.Release())
		check("released", true, false)
	}
	ok, err := l.TryAcquire()
	if !ok || err != nil {
		t.Fatalf("TryAcquire: %v, %v", ok, err)
	}
	check("tried", true, true)
	ok, err = l.TryAcquire()
	if ok || err != nil {
		t.Fatalf("second TryAcquire: %v, %v", ok, err)
	}
	check("tried twice", true, true)
	must(t, l.Release())
	check("released", true, false)
}

// Every pair of ways to lock a file, under every name of the file, excludes or admits.
func TestPairs(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "lock")
	must(t, os.WriteFile(path, nil, 0o666))
	t.Chdir(dir)
	names := map[string]string{
		"same name":     path,
		"relative name": "lock",
		"odd name":      filepath.Join(dir, ".") + string(filepath.Separator) + "." + string(filepath.Separator) + "lock",
	}
	if err := os.Link(path, path+".hard"); err == nil {
		names["hard link"] = path + ".hard"
	}
	must(t, os.Symlink(path, path+".soft"))
	if _, err := os.Lstat(path + ".soft"); err == nil {
		names["symbolic link"] = path + ".soft"
	}

	for name, other := range names {
		for i, a := range sides(path) {
			for j, b := range sides(other) {
				t.Run(fmt.Sprintf("%s/%s/%s", name, a.name, b.name), func(t *testing.T) {
					testPair(t, a, b)
				})
				if name == "same name" && i == j {
					t.Run(fmt.Sprintf("same handle/%s", a.name), func(t *testing.T) {
						testPair(t, a, a)
					})
				}
			}
		}
	}
}

func testPair(t *testing.T, a, b side) {
	a.mustAcquire(t)
	if a.shared && b.shared {
		b.mustAcquire(t)
		b.mustRelease(t)
		b.mustTry(t, true)
		a.mustRelease(t)
		return
	}
	b.mustTry(t, false)
	b.mustTry(t, false) // the first has not dropped the lock
	done := b.goAcquire(t, background)
	a.mustRelease(t)
	must(t, <-done)
	a.mustTry(t, false)
	b.mustRelease(t)
	a.mustTry(t, true)
}

func TestReleaseOfWhatIsNotHeld(t *testing.T) {
	path := lockPath(t)
	for _, s := range sides(path) {
		checkError(t, s.release(), "release", path, fasteners.ErrNotAcquired)
		s.mustAcquire(t)
		for _, other := range sides(path) {
			checkError(t, other.release(), "release", path, fasteners.ErrNotAcquired)
			if !s.shared || !other.shared {
				other.mustTry(t, false)
			}
		}
		s.mustRelease(t)
		checkError(t, s.release(), "release", path, fasteners.ErrNotAcquired)
		s.mustTry(t, true)
	}

	// The sides of one handle are not taken for one another.
	rw := fasteners.NewInterProcessReaderWriterLock(path)
	must(t, rw.AcquireReadLock(background))
	checkError(t, rw.ReleaseWriteLock(), "release", path, fasteners.ErrNotAcquired)
	writer(rw).mustTry(t, false)
	must(t, rw.ReleaseReadLock())
	must(t, rw.AcquireWriteLock(background))
	checkError(t, rw.ReleaseReadLock(), "release", path, fasteners.ErrNotAcquired)
	reader(rw).mustTry(t, false)
	must(t, rw.ReleaseWriteLock())
}

func TestOneGoroutineReleasesForAnother(t *testing.T) {
	l := fasteners.NewInterProcessLock(lockPath(t))
	must(t, l.Acquire(background))
	done := make(chan error)
	go func() { done <- l.Release() }()
	must(t, <-done)
	exclusive(l).mustTry(t, true)
}

func TestContentAndModeStay(t *testing.T) {
	path := lockPath(t)
	must(t, os.WriteFile(path, []byte("precious"), 0o640))
	before, err := os.Stat(path)
	must(t, err)
	for _, s := range sides(path) {
		s.mustAcquire(t)
		s.mustRelease(t)
	}
	after, err := os.Stat(path)
	must(t, err)
	if after.Mode() != before.Mode() || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("mode and time were %v %v, are %v %v", before.Mode(), before.ModTime(), after.Mode(), after.ModTime())
	}
	content, err := os.ReadFile(path)
	must(t, err)
	if string(content) != "precious" {
		t.Errorf("content is %q", content)
	}
}

func TestContextThatIsDoneWins(t *testing.T) {
	path := lockPath(t)
	cancelled, cancel := context.WithCancel(background)
	cancel()
	past, cancel := context.WithDeadline(background, time.Unix(0, 0))
	defer cancel()
	for _, s := range sides(path) {
		checkError(t, s.acquire(cancelled), "acquire", path, context.Canceled)
		checkError(t, s.acquire(past), "acquire", path, context.DeadlineExceeded)
		s.mustTry(t, true)
	}
}

// A waiter gives up: behind its own process, and behind another one.
func TestCancellation(t *testing.T) {
	for _, where := range []string{"same process", "other process"} {
		for i, name := range []string{"exclusive", "read", "write"} {
			t.Run(where+"/"+name, func(t *testing.T) {
				path := lockPath(t)
				s := sides(path)[i]
				holder := exclusive(fasteners.NewInterProcessLock(path))
				if where == "other process" {
					p := startHolder(t, path, "exclusive")
					holder.release = func() error { p.release(); return nil }
				} else {
					holder.mustAcquire(t)
				}

				ctx, cancel := context.WithCancel(background)
				done := s.goAcquire(t, ctx)
				cancel()
				checkError(t, <-done, "acquire", path, context.Canceled)
				checkError(t, s.release(), "release", path, fasteners.ErrNotAcquired)

				ctx, cancel = context.WithTimeout(background, time.Millisecond)
				defer cancel()
				checkError(t, s.acquire(ctx), "acquire", path, context.DeadlineExceeded)

				// Who waits on is served.
				ctx, cancel = context.WithCancel(background)
				first := s.goAcquire(t, ctx)
				last := sides(path)[2]
				second := last.goAcquire(t, cancellable(t))
				cancel()
				checkError(t, <-first, "acquire", path, context.Canceled)
				holder.mustRelease(t)
				must(t, <-second)
				last.mustRelease(t)
			})
		}
	}
}

// A cancelled waiter never holds the lock, even if it is released right then.
func TestCancelledBeforeRelease(t *testing.T) {
	path := lockPath(t)
	for range 200 {
		holder, s := sides(path)[0], sides(path)[2]
		holder.mustAcquire(t)
		ctx, cancel := context.WithCancel(background)
		done := make(chan error, 1)
		go func() { done <- s.acquire(ctx) }()
		cancel()
		holder.mustRelease(t)
		checkError(t, <-done, "acquire", path, context.Canceled)
		holder.mustTry(t, true)
	}
}

// Waiting readers that stand behind a writer get in when it gives up.
func TestReadersBehindACancelledWriter(t *testing.T) {
	path := lockPath(t)
	first, late := sides(path)[1], sides(path)[1]
	first.mustAcquire(t)
	ctx, cancel := context.WithCancel(background)
	w := sides(path)[2].goAcquire(t, ctx)
	late.mustTry(t, false) // as with sync.RWMutex
	r := late.goAcquire(t, background)
	cancel()
	checkError(t, <-w, "acquire", path, context.Canceled)
	must(t, <-r)
	late.mustRelease(t)
	first.mustRelease(t)
}

// Where nobody writes, no reader's try fails, whatever other readers are about.
func TestTriesOfReadersNeverFail(t *testing.T) {
	path := lockPath(t)
	l := fasteners.NewInterProcessReaderWriterLock(path)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				ok, err := l.TryAcquireReadLock()
				if !ok || err != nil {
					t.Errorf("try: %v, %v", ok, err)
					return
				}
				if err := l.ReleaseReadLock(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// Readers of one handle count, and one writer among them shows.
func TestReadersAddOneWritersManyMore(t *testing.T) {
	l := fasteners.NewInterProcessReaderWriterLock(lockPath(t))
	var inside atomic.Int64
	work := func(acquire func(context.Context) error, release func() error, weight int64, allowed func(int64) bool) {
		for range 200 {
			if err := acquire(background); err != nil {
				t.Error(err)
				return
			}
			if sum := inside.Add(weight); !allowed(sum) {
				t.Errorf("sum of those inside is %d", sum)
			}
			inside.Add(-weight)
			if err := release(); err != nil {
				t.Error(err)
			}
		}
	}
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			work(l.AcquireReadLock, l.ReleaseReadLock, 1, func(sum int64) bool { return sum <= 6 })
		})
	}
	for range 2 {
		wg.Go(func() {
			work(l.AcquireWriteLock, l.ReleaseWriteLock, 10000, func(sum int64) bool { return sum == 10000 })
		})
	}
	wg.Wait()
}

// What can happen to a lock file, and what the holder and a waiter make of it.
func TestReplacedWhileHeld(t *testing.T) {
	replacements := map[string]func(t *testing.T, path string){
		"removed": func(t *testing.T, path string) {
			must(t, os.Remove(path))
		},
		"moved": func(t *testing.T, path string) {
			must(t, os.Rename(path, path+".old"))
		},
		"replaced": func(t *testing.T, path string) {
			must(t, os.WriteFile(path+".new", nil, 0o666))
			must(t, os.Rename(path+".new", path))
		},
		"directory moved": func(t *testing.T, path string) {
			must(t, os.Rename(filepath.Dir(path), filepath.Dir(path)+".old"))
		},
		"moved, a directory in its place": func(t *testing.T, path string) {
			must(t, os.Rename(path, path+".old"))
			must(t, os.Mkdir(path, 0o777))
		},
	}
	for name, replace := range replacements {
		for i := range sides("") {
			path := filepath.Join(t.TempDir(), "dir", "lock")
			s, other := sides(path)[i], sides(path)[2]
			t.Run(name+"/"+s.name, func(t *testing.T) {
				if !filesCanBeReplacedWhileOpen {
					t.Skip("an open file cannot be removed or moved here")
				}
				s.mustAcquire(t)
				w := sides(path)[0]
				waiting := w.goAcquire(t, cancellable(t))
				replace(t, path)
				if fi, err := os.Stat(path); err == nil && fi.IsDir() {
					if ok, err := other.try(); ok || err == nil {
						t.Errorf("a directory was locked: %v, %v", ok, err)
					}
					if err := <-waiting; err == nil {
						t.Error("a directory was locked")
					}
					checkError(t, s.release(), "release", path, fasteners.ErrReplaced)
					return
				}
				// On the new file, while the other one is held.
				must(t, <-waiting)
				other.mustTry(t, false)
				checkError(t, s.release(), "release", path, fasteners.ErrReplaced)
				checkError(t, s.release(), "release", path, fasteners.ErrNotAcquired)
				other.mustTry(t, false)
				w.mustRelease(t)
				other.mustTry(t, true)
			})
		}
	}
}

// One handle, two holders of two files, as the first was removed in between. The release of
// the first gives back the first.
func TestHoldsOnTwoFiles(t *testing.T) {
	if !filesCanBeReplacedWhileOpen {
		t.Skip("an open file cannot be removed or moved here")
	}
	for i, name := range []string{"exclusive", "read", "write"} {
		t.Run(name, func(t *testing.T) {
			path := lockPath(t)
			s := sides(path)[i]
			s.mustAcquire(t)
			must(t, os.Remove(path))
			s.mustAcquire(t)
			checkError(t, s.release(), "release", path, fasteners.ErrReplaced)
			sides(path)[2].mustTry(t, false) // the second is inside
			s.mustRelease(t)
			checkError(t, s.release(), "release", path, fasteners.ErrNotAcquired)
			sides(path)[2].mustTry(t, true)
			for resources(path).locked > 0 { // for ever, if one leaks
				time.Sleep(time.Millisecond)
			}
		})
	}
}

func TestBadInput(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, nil, 0o666))
	for _, test := range []struct {
		name   string
		path   string
		target error
		opts   []fasteners.Option
	}{
		{"empty path", "", fs.ErrInvalid, nil},
		{"NUL in path", "a\x00b", fs.ErrInvalid, nil},
		{"negative delay", file, fs.ErrInvalid, []fasteners.Option{fasteners.WithPollInterval(-1, time.Second)}},
		{"negative maximum", file, fs.ErrInvalid, []fasteners.Option{fasteners.WithPollInterval(0, -1)}},
		{"directory", dir, errIsDirectory, nil},
		{"parent is a file", filepath.Join(file, "lock"), errNotDirectory, nil},
		{"grandparent is a file", filepath.Join(file, "dir", "lock"), errNotDirectory, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			checkRefused(t, test.path, test.target, test.opts...)
		})
	}
}

// checkRefused checks that nobody can lock path.
func checkRefused(t *testing.T, path string, target error, opts ...fasteners.Option) {
	t.Helper()
	for _, s := range sides(path, opts...) {
		checkError(t, s.acquire(background), "acquire", path, target)
		ok, err := s.try()
		if ok {
			t.Errorf("try to get the %s lock has succeeded", s.name)
		}
		checkError(t, err, "acquire", path, target)
		checkError(t, s.release(), "release", path, fasteners.ErrNotAcquired)
	}
}

func TestNilContext(t *testing.T) {
	path := lockPath(t)
	for _, s := range sides(path) {
		checkError(t, s.acquire(nil), "acquire", path, fs.ErrInvalid) //nolint:staticcheck // the point
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a file was created")
	}
}

func TestPollIntervals(t *testing.T) {
	for _, test := range []struct{ delay, maxDelay time.Duration }{
		{0, 0}, {1, 0}, {0, 1}, {time.Millisecond, time.Microsecond}, {time.Hour, time.Second},
	} {
		path := lockPath(t)
		l := fasteners.NewInterProcessLock(path, fasteners.WithPollInterval(test.delay, test.maxDelay))
		must(t, l.Acquire(background))
		must(t, l.Release())
	}
}

func TestFileMode(t *testing.T) {
	if !filesHavePermissions {
		t.Skip("files have no permission bits here")
	}
	for _, perm := range []fs.FileMode{0o600, 0o644, 0o400, 0o200} {
		path := lockPath(t)
		l := fasteners.NewInterProcessLock(path, fasteners.WithFileMode(perm|fs.ModeSetuid))
		must(t, l.Acquire(background))
		fi, err := os.Stat(path)
		must(t, err)
		if fi.Mode() != perm {
			t.Errorf("mode is %v, want %v", fi.Mode(), perm)
		}
		must(t, l.Release())
	}
}

func TestLogger(t *testing.T) {
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	path := lockPath(t)
	s := sides(path, fasteners.WithLogger(logger))[2]
	s.mustAcquire(t)
	s.mustRelease(t)
	s.mustTry(t, true)
	_ = s.release()
	for _, want := range []string{"acquire", "release", "try to acquire", "exclusive", "waited=", "acquired=true", path} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("log lacks %q:\n%s", want, &log)
		}
	}

	s = sides(path, fasteners.WithLogger(nil))[2]
	s.mustAcquire(t)
	s.mustRelease(t)
}

func TestZeroValues(t *testing.T) {
	checkError(t, new(fasteners.InterProcessLock).Acquire(background), "acquire", "", fs.ErrInvalid)
	checkError(t, new(fasteners.InterProcessReaderWriterLock).AcquireReadLock(background), "acquire", "", fs.ErrInvalid)
}

// Different files are different locks.
func TestManyFiles(t *testing.T) {
	dir := t.TempDir()
	var held []*fasteners.InterProcessLock
	for i := range 100 {
		l := fasteners.NewInterProcessLock(filepath.Join(dir, fmt.Sprint(i)))
		ok, err := l.TryAcquire()
		if !ok || err != nil {
			t.Fatalf("file %d: %v, %v", i, ok, err)
		}
		held = append(held, l)
	}
	for _, l := range held {
		must(t, l.Release())
	}
}

func TestErrorsSayWhatAndWhere(t *testing.T) {
	path := lockPath(t)
	err := fasteners.NewInterProcessLock(path).Release()
	if want := "release " + path + ": lock is not acquired"; err.Error() != want {
		t.Errorf("error is %q, want %q", err, want)
	}
	var timeout interface{ Timeout() bool }
	l := fasteners.NewInterProcessLock(path)
	must(t, l.Acquire(background))
	defer l.Release()
	ctx, cancel := context.WithTimeout(background, time.Millisecond)
	defer cancel()
	if err := l.Acquire(ctx); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("error %v is no timeout", err)
	}
}
