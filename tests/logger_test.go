//go:build unix || windows

package tests

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/go-fasteners/fasteners"
)

// A handlerFunc is a log handler.
type handlerFunc func(message string)

func (handlerFunc) Enabled(context.Context, slog.Level) bool { return true }
func (h handlerFunc) WithAttrs([]slog.Attr) slog.Handler     { return h }
func (h handlerFunc) WithGroup(string) slog.Handler          { return h }

func (h handlerFunc) Handle(_ context.Context, r slog.Record) error {
	h(r.Message)
	return nil
}

// operations are all that acquires a lock, and releases it where that is possible.
func operations(
	l *fasteners.InterProcessLock, rw *fasteners.InterProcessReaderWriterLock,
) map[string]func() {
	nothing := func(context.Context) error { return nil }
	return map[string]func(){
		"Acquire":             func() { _, _ = l.Acquire(background), l.Release() },
		"TryAcquire":          func() { _, _ = l.TryAcquire(); _ = l.Release() },
		"Hold":                func() { _, release, _ := l.Hold(background); _ = release() },
		"WithLock":            func() { _ = fasteners.WithLock(background, l, nothing) },
		"AcquireReadLock":     func() { _, _ = rw.AcquireReadLock(background), rw.ReleaseReadLock() },
		"TryAcquireReadLock":  func() { _, _ = rw.TryAcquireReadLock(); _ = rw.ReleaseReadLock() },
		"WithReadLock":        func() { _ = fasteners.WithReadLock(background, rw, nothing) },
		"AcquireWriteLock":    func() { _, _ = rw.AcquireWriteLock(background), rw.ReleaseWriteLock() },
		"TryAcquireWriteLock": func() { _, _ = rw.TryAcquireWriteLock(); _ = rw.ReleaseWriteLock() },
		"WithWriteLock":       func() { _ = fasteners.WithWriteLock(background, rw, nothing) },
	}
}

// If a log handler panics, so does what has called it, and the lock is free afterwards.
func TestLogHandlerPanics(t *testing.T) {
	for _, message := range []string{"acquire", "try to acquire", "release"} {
		path := lockPath(t)
		panics := 0
		logger := slog.New(handlerFunc(func(m string) {
			if m == "fasteners: "+message {
				panics++
				panic("handler")
			}
		}))
		l := fasteners.NewInterProcessLock(path, fasteners.WithLogger(logger))
		rw := fasteners.NewInterProcessReaderWriterLock(path, fasteners.WithLogger(logger))
		for name, operate := range operations(l, rw) {
			func() {
				before := panics
				defer func() {
					if p := recover(); (p != nil) != (panics > before) || p != nil && p != "handler" {
						t.Errorf("%s, handler of %q: panic with %v", name, message, p)
					}
				}()
				operate()
			}()
			other := fasteners.NewInterProcessLock(path)
			if ok, err := other.TryAcquire(); !ok || err != nil {
				t.Fatalf("%s, handler of %q: somebody holds the lock: %v, %v", name, message, ok, err)
			}
			must(t, other.Release())
		}
		if panics == 0 {
			t.Errorf("%q was never logged", message)
		}
	}
}

// A log handler may wait for the lock that it logs: it gets it when the caller has released it.
func TestLogHandlerAcquires(t *testing.T) {
	path := lockPath(t)
	other := fasteners.NewInterProcessLock(path)
	var calls atomic.Int64
	acquired := make(chan error, 100)
	logger := slog.New(handlerFunc(func(string) {
		calls.Add(1)
		err := other.Acquire(background)
		if err == nil {
			err = other.Release()
		}
		acquired <- err
	}))
	l := fasteners.NewInterProcessLock(path, fasteners.WithLogger(logger))
	must(t, l.Acquire(background))
	must(t, l.Release())
	must(t, fasteners.WithLock(background, l, func(context.Context) error { return nil }))
	for range calls.Load() {
		must(t, <-acquired)
	}
}
