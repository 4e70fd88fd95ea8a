//go:build unix || windows

package fasteners

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"
)

// A notice whose timer fires as the wait ends tells nothing.
func TestNoticeAfterTheEnd(t *testing.T) {
	calls := 0
	lock := NewInterProcessLock(filepath.Join(t.TempDir(), "lock"), WithLogger(slog.New(slog.DiscardHandler)),
		WithWaitNotice(time.Hour, func([]Holder) { calls++ }))
	w := &waitContext{lazyContext: lazyContext{Context: t.Context()}, handle: &lock.handle, start: time.Now()}
	w.Done()
	w.tell()
	if calls != 1 {
		t.Errorf("%d calls before the end, want 1", calls)
	}
	w.end()
	w.tell()
	if calls != 1 {
		t.Errorf("%d calls after the end", calls-1)
	}
}

// Once the context is done, the wait tells nothing any more, though Acquire has not returned yet.
func TestNoticeAfterCancellation(t *testing.T) {
	calls := 0
	lock := NewInterProcessLock(filepath.Join(t.TempDir(), "lock"),
		WithWaitNotice(time.Hour, func([]Holder) { calls++ }))
	ctx, cancel := context.WithCancel(t.Context())
	w := &waitContext{lazyContext: lazyContext{Context: ctx}, handle: &lock.handle, start: time.Now()}
	defer w.end()
	w.Done()
	cancel()
	w.tell()
	if calls > 0 {
		t.Errorf("%d calls", calls)
	}
}

// A wait that is over leaves no context behind: it is canceled, whatever the timeout.
func TestEndCancels(t *testing.T) {
	lock := NewInterProcessLock(filepath.Join(t.TempDir(), "lock"), WithTimeout(time.Hour))
	w := &waitContext{lazyContext: lazyContext{Context: t.Context()}, handle: &lock.handle, start: time.Now()}
	w.Done()
	w.end()
	if w.Err() == nil {
		t.Error("the context is not done")
	}
}
