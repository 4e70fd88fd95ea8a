//go:build unix || windows

package tests

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
)

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
		check("after Acquire", true, true)
		must(t, l.Release())
		check("after Release", true, false)
	}
	ok, err := l.TryAcquire()
	if !ok || err != nil {
		t.Fatalf("TryAcquire: %v, %v", ok, err)
	}
	check("after TryAcquire", true, true)
	ok, err = l.TryAcquire()
	if ok || err != nil {
		t.Fatalf("second TryAcquire: %v, %v", ok, err)
	}
	check("after the second TryAcquire", true, true)
	must(t, l.Release())
	check("after the last Release", true, false)
}

func TestReleaseNotAcquired(t *testing.T) {
	path := lockPath(t)
	for _, v := range variants(path) {
		checkError(t, v.release(), "release", path, fasteners.ErrNotAcquired)
		v.mustAcquire(t)
		for _, other := range variants(path) {
			checkError(t, other.release(), "release", path, fasteners.ErrNotAcquired)
			if !v.shared || !other.shared {
				other.mustTry(t, false)
			}
		}
		v.mustRelease(t)
		checkError(t, v.release(), "release", path, fasteners.ErrNotAcquired)
		v.mustTry(t, true)
	}

	// A handle does not confuse its read lock and its write lock.
	rw := fasteners.NewInterProcessReaderWriterLock(path)
	must(t, rw.AcquireReadLock(background))
	checkError(t, rw.ReleaseWriteLock(), "release", path, fasteners.ErrNotAcquired)
	writerOf(rw).mustTry(t, false)
	must(t, rw.ReleaseReadLock())
	must(t, rw.AcquireWriteLock(background))
	checkError(t, rw.ReleaseReadLock(), "release", path, fasteners.ErrNotAcquired)
	readerOf(rw).mustTry(t, false)
	must(t, rw.ReleaseWriteLock())
}

func TestReleaseByAnotherGoroutine(t *testing.T) {
	l := fasteners.NewInterProcessLock(lockPath(t))
	must(t, l.Acquire(background))
	done := make(chan error)
	go func() { done <- l.Release() }()
	must(t, <-done)
	exclusiveOf(l).mustTry(t, true)
}

func TestContentAndModeUnchanged(t *testing.T) {
	path := lockPath(t)
	must(t, os.WriteFile(path, []byte("precious"), 0o640))
	before, err := os.Stat(path)
	must(t, err)
	for _, v := range variants(path) {
		v.mustAcquire(t)
		v.mustRelease(t)
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

// checkRefused checks that acquiring a lock on path fails with an error that wraps target.
func checkRefused(t *testing.T, path string, target error, opts ...fasteners.Option) {
	t.Helper()
	for _, v := range variants(path, opts...) {
		checkError(t, v.acquire(background), "acquire", path, target)
		ok, err := v.try()
		if ok {
			t.Errorf("trying to acquire the %s lock has succeeded", v.name)
		}
		checkError(t, err, "acquire", path, target)
		checkError(t, v.release(), "release", path, fasteners.ErrNotAcquired)
	}
}

func TestNilContext(t *testing.T) {
	path := lockPath(t)
	for _, v := range variants(path) {
		checkError(t, v.acquire(nil), "acquire", path, fs.ErrInvalid) //nolint:staticcheck // it is what is tested
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a file was created")
	}
}

func TestZeroValues(t *testing.T) {
	checkError(t, new(fasteners.InterProcessLock).Acquire(background), "acquire", "", fs.ErrInvalid)
	checkError(t, new(fasteners.InterProcessReaderWriterLock).AcquireReadLock(background), "acquire", "", fs.ErrInvalid)
}

func TestErrorText(t *testing.T) {
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
		t.Errorf("error %v is not a timeout", err)
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

// Users who never want to poll choose a very long interval, which must not overflow.
func TestLongestPollInterval(t *testing.T) {
	for _, holder := range []string{"this process", "another process"} {
		t.Run(holder, func(t *testing.T) {
			path := lockPath(t)
			if holder == "this process" {
				h := exclusive(path)
				h.mustAcquire(t)
				defer h.release()
			} else {
				startHolder(t, path, "write")
			}
			for _, v := range variants(path, fasteners.WithPollInterval(math.MaxInt64, 0)) {
				ctx, cancel := context.WithTimeout(background, 50*time.Millisecond)
				if err := v.acquire(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("error is %v", err)
				}
				cancel()
			}
		})
	}
}

func TestFileMode(t *testing.T) {
	if !filesHavePermissions {
		t.Skip("files have no permission bits here")
	}
	for _, perm := range []fs.FileMode{0o600, 0o644} {
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
	v := writer(path, fasteners.WithLogger(logger))
	v.mustAcquire(t)
	v.mustRelease(t)
	v.mustTry(t, true)
	_ = v.release()
	for _, want := range []string{"acquire", "release", "try to acquire", "exclusive", "waited=", "acquired=true", path} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("log does not contain %q:\n%s", want, &log)
		}
	}

	v = writer(path, fasteners.WithLogger(nil))
	v.mustAcquire(t)
	v.mustRelease(t)
}
