//go:build unix || windows

package tests

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/go-fasteners/fasteners"
)

// Every call is logged with its outcome, also if it fails before it gets to the lock file.
func TestEveryCallIsLogged(t *testing.T) {
	var log bytes.Buffer
	logger := fasteners.WithLogger(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	path := lockPath(t)
	l := fasteners.NewInterProcessReaderWriterLock(path, logger)
	invalid := fasteners.NewInterProcessReaderWriterLock(path, logger, fasteners.WithPollInterval(-1, 0))
	try := func(l *fasteners.InterProcessReaderWriterLock) func() error {
		return func() error { _, err := l.TryAcquireWriteLock(); return err }
	}
	acquire := func(l *fasteners.InterProcessReaderWriterLock) func() error {
		return func() error { return l.AcquireWriteLock(background) }
	}
	for _, test := range []struct {
		call  func() error
		fails bool
		want  string // a part of the log
	}{
		{acquire(l), false, `msg="fasteners: acquire" mode=exclusive waited=`},
		{try(l), false, `msg="fasteners: try to acquire" mode=exclusive acquired=false`},
		{l.Downgrade, false, `msg="fasteners: downgrade"`},
		{l.Downgrade, true, `msg="fasteners: downgrade"`},
		{l.ReleaseReadLock, false, `msg="fasteners: release"`},
		{l.ReleaseReadLock, true, `msg="fasteners: release"`},
		{try(l), false, `msg="fasteners: try to acquire" mode=exclusive acquired=true`},
		{l.ReleaseWriteLock, false, `msg="fasteners: release"`},
		{acquire(invalid), true, `msg="fasteners: acquire"`},
		{try(invalid), true, `msg="fasteners: try to acquire" mode=exclusive acquired=false`},
	} {
		log.Reset()
		err := test.call()
		if (err != nil) != test.fails {
			t.Fatalf("want %s: error is %v", test.want, err)
		}
		got := log.String()
		if strings.Count(got, "\n") != 1 || !strings.Contains(got, test.want) ||
			!strings.Contains(got, path) || strings.Contains(got, "error=") != test.fails {
			t.Errorf("log is %q, want %s, with an error: %v", got, test.want, test.fails)
		}
	}
}

// A nil Option is ignored, as a nil logger is.
func TestNilOption(t *testing.T) {
	for _, v := range variants(lockPath(t), nil, fasteners.WithLogger(nil), nil) {
		v.mustAcquire(t)
		v.mustRelease(t)
	}
}

// A relative path is resolved again for the release: after a change of the current directory, it
// names another file, or none.
func TestChdirWhileHeld(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, v := range variants("lock") {
		v.mustAcquire(t)
		t.Chdir(t.TempDir())
		checkError(t, v.release(), "release", "lock", fasteners.ErrReplaced)
	}
}
