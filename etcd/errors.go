package etcd

import (
	"errors"
	"fmt"

	"github.com/go-fasteners/fasteners"
)

// ErrClosed is wrapped by the error returned when acquiring a lock of a session that was closed.
var ErrClosed = errors.New("session is closed")

// Why locks are lost, besides the deadline of their lease.
var (
	errLostByClose = fmt.Errorf("%w: %w", fasteners.ErrLost, ErrClosed)
	errLeaseGone   = fmt.Errorf("%w: etcd has no such lease any more", fasteners.ErrLost)
	errKeyGone     = fmt.Errorf("%w: its key in etcd is gone", fasteners.ErrLost)
	errNoCleanup   = fmt.Errorf("%w: cannot delete the key of a canceled acquire", fasteners.ErrLost)
	errNoDeletion  = fmt.Errorf("%w: no answer from etcd in time to the release", fasteners.ErrLost)
)

var errRequeue = errors.New("place in the queue is gone")
