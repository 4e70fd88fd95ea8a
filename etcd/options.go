package etcd

import (
	"fmt"
	"io/fs"
	"log/slog"
	"time"
)

// An Option changes how a session and the locks that are made from it behave. A nil Option is
// ignored.
type Option interface{ apply(*options) }

type option func(*options)

func (f option) apply(o *options) { f(o) }

type options struct {
	ttl     time.Duration
	margin  time.Duration // or 0, for a tenth of the TTL
	timeout time.Duration // or 0
	logger  *slog.Logger  // or nil
	invalid error         // what is wrong with the options
}

var defaults = options{ttl: 10 * time.Second}

func invalid(why string) Option {
	return option(func(o *options) { o.invalid = fmt.Errorf("%s: %w", why, fs.ErrInvalid) })
}

// WithTTL sets how long etcd keeps the locks of a session from which it hears nothing: after that
// time others can acquire them. A longer TTL survives longer failures of the network and of etcd;
// a shorter one frees the locks of a process that has crashed earlier. The default is 10 s.
//
// It is rounded up to whole seconds, and etcd raises it to its minimum, which is 2 s unless its
// election timeout was changed. If ttl is not positive, acquiring a lock fails with
// [fs.ErrInvalid].
func WithTTL(ttl time.Duration) Option {
	if ttl <= 0 {
		return invalid("TTL is not positive")
	}
	return option(func(o *options) { o.ttl = ttl })
}

// WithMargin sets how long before etcd could give its locks away a session takes them to be lost.
// That is the time that a function has to stop after its context is done, and it has to cover the
// difference between the speeds of the clocks of this machine and of etcd's. The default, and
// zero, is a tenth of the TTL. If margin is negative, or not less than half the TTL, acquiring a
// lock fails with [fs.ErrInvalid].
func WithMargin(margin time.Duration) Option {
	if margin < 0 {
		return invalid("negative margin")
	}
	return option(func(o *options) { o.margin = margin })
}

// WithTimeout bounds each wait for a lock: an acquire that has waited for d fails with an error
// that wraps [context.DeadlineExceeded]. Unlike a deadline of the context, it does not bound the
// function that [fasteners.WithLock] calls. Zero is no timeout. If d is negative, acquiring a
// lock fails with [fs.ErrInvalid].
func WithTimeout(d time.Duration) Option {
	if d < 0 {
		return invalid("negative timeout")
	}
	return option(func(o *options) { o.timeout = d })
}

// WithLogger makes the session log every acquire, try and release of its locks at
// [slog.LevelDebug], with its outcome, also if it fails; waits that take longer than a second at
// [slog.LevelInfo], and again at growing distances; and the loss of its lease at
// [slog.LevelWarn]. A nil logger, which is the default, logs nothing. What the client of etcd
// logs is for its own configuration to say.
func WithLogger(logger *slog.Logger) Option {
	return option(func(o *options) { o.logger = logger })
}

func newOptions(opts []Option) options {
	o := defaults
	for _, opt := range opts {
		if opt != nil {
			opt.apply(&o)
		}
	}
	if part := o.ttl % time.Second; part > 0 {
		o.ttl += time.Second - part
	}
	if o.margin >= o.ttl/2 && o.invalid == nil {
		invalid("margin is not less than half the TTL").apply(&o)
	}
	return o
}
