package postgres

import (
	"cmp"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// An Option changes how the locks of a [DB] behave. A nil Option is ignored.
type Option interface{ apply(*options) }

type option func(*options)

func (f option) apply(o *options) { f(o) }

type options struct {
	ttl      time.Duration
	margin   time.Duration // or 0, for a tenth of the TTL
	timeout  time.Duration // or 0
	sequence string        // as SQL has it; "" for no tokens
	pooler   bool
	logger   *slog.Logger // or nil
	invalid  error        // what is wrong with the options
}

var defaults = options{ttl: 10 * time.Second, sequence: quote("fasteners_token")}

// invalid returns an option that makes every acquire fail.
func invalid(why string) Option {
	return option(func(o *options) { o.invalid = fmt.Errorf("%s: %w", why, fs.ErrInvalid) })
}

// WithTTL sets the time to live of a lock whose holder the server no longer
// hears from. The default is ten seconds. The holder sends a sign of life four
// times in that time.
//
// It must be the same for all programs that use the locks of a database: after
// a start of the server, an acquire waits for as long as a holder from before
// may still take itself for one. If it is shorter than 100 milliseconds or
// longer than a day, acquiring a lock fails with [fs.ErrInvalid].
func WithTTL(ttl time.Duration) Option {
	if ttl < 100*time.Millisecond || ttl > 24*time.Hour {
		return invalid("TTL out of range")
	}
	return option(func(o *options) { o.ttl = ttl.Truncate(time.Millisecond) })
}

// WithMargin sets how long before the server releases a lock its holder takes
// it to be lost. That is the time that a function has to stop after its context
// is done, and it has to cover the difference between the speeds of the clocks
// of this machine and of the server. The default, and zero, is a tenth of the
// TTL. If margin is negative, or not less than half the TTL, acquiring a lock
// fails with [fs.ErrInvalid].
func WithMargin(margin time.Duration) Option {
	if margin < 0 {
		return invalid("negative margin")
	}
	return option(func(o *options) { o.margin = margin })
}

// WithTimeout bounds each wait for a lock: an acquire that has waited for d
// fails with an error that wraps [context.DeadlineExceeded]. Unlike a deadline
// of the context, it does not bound the function that [fasteners.WithLock]
// calls. Zero is no timeout. If d is negative, acquiring a lock fails with
// [fs.ErrInvalid].
func WithTimeout(d time.Duration) Option {
	if d < 0 {
		return invalid("negative timeout")
	}
	return option(func(o *options) { o.timeout = d })
}

// WithSequence sets the sequence that tokens are taken from: see
// [fasteners.Token]. The default is fasteners_token. A name without a schema is
// in the schema public. The sequence is created if it does not exist, which the
// user of the database must have the right to do. With an empty name, locks
// have no tokens.
//
// The sequence must be the same for all programs that use the locks of a
// database. Acquiring a lock fails if the sequence caches values, cycles or
// descends: its tokens would not be in order.
func WithSequence(name string) Option {
	if strings.Contains(name, "\x00") || strings.Count(name, ".") > 1 {
		return invalid("invalid name of a sequence")
	}
	return option(func(o *options) { o.sequence = quote(name) })
}

// quote returns the name of a sequence for use in SQL.
func quote(name string) string {
	if name == "" {
		return ""
	}
	schema, name, ok := strings.Cut(name, ".")
	if !ok {
		schema, name = "public", schema
	}
	return pgx.Identifier{schema, name}.Sanitize()
}

// WithSessionPooler allows a connection pooler between the program and the
// server. It must pool sessions, as PgBouncer does with pool_mode=session: one
// that pools transactions or statements gives the same lock to several holders.
// Each lock that is held or waited for needs a connection of the pool.
func WithSessionPooler() Option { return option(func(o *options) { o.pooler = true }) }

// WithLogger makes the locks log every acquire, try and release at
// [slog.LevelDebug], with its outcome, also if it fails; waits that take longer
// than a second at [slog.LevelInfo], and again at growing distances, and that
// the server cannot be reached; and the loss of a lock at [slog.LevelWarn]. A
// nil logger, which is the default, logs nothing.
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
	if o.margin >= o.ttl/2 && o.invalid == nil {
		invalid("margin is not less than half the TTL").apply(&o)
	}
	o.margin = cmp.Or(o.margin, o.ttl/10)
	return o
}
