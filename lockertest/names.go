package lockertest

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/go-fasteners/fasteners"
)

// testNames checks that locks have nothing to do with each other if the name of one is the
// beginning of that of the other, or differs only at its end. All are held at a time.
func (s *suite) testNames(t *testing.T, w way) {
	for _, pass := range []struct{ queue, reverse bool }{
		{}, {queue: true}, {queue: true, reverse: true},
	} {
		names := s.similarNames(t)
		strangers, lost := make([]access, len(names)), make([]*holding, len(names))
		for i, name := range names {
			strangers[i] = s.open(t, name, w.exclusive())
			if s.Lose != nil {
				lost[i] = s.lost(t, name, w)
			}
		}
		var all []*other
		for _, name := range names {
			all = append(all, s.hold(t, name, s.open(t, name, w), pass.queue))
		}
		mustNotNotice(t, "acquires of locks with other names", all...)
		for i, a := range strangers {
			checkError(t, w.release(a.lock), "release", fasteners.ErrNotAcquired)
			if s.Lose != nil {
				checkError(t, lost[i].release(), "release", fasteners.ErrLost)
			}
		}
		mustNotNotice(t, "releases that failed", all...)
		ctx, cancel := context.WithCancel(context.Background())
		var waits []<-chan result
		for _, a := range strangers {
			waits = append(waits, a.start(ctx))
		}
		mustNotNotice(t, "acquires of locks that are held", all...)
		cancel()
		for i, a := range strangers {
			a.mustFail(t, waits[i], context.Canceled)
		}
		mustNotNotice(t, "waits that were canceled", all...)
		if pass.reverse { // then the names that are the beginnings of others come last
			slices.Reverse(all)
		}
		for len(all) > 0 {
			all[0].leave(t)
			all = all[1:]
			mustNotNotice(t, "the release of locks with other names", all...)
		}
	}
}

// similarNames returns names some of which are the beginnings of others, and two of the greatest
// length that differ in the last character.
func (s *suite) similarNames(t *testing.T) []string {
	name := lockName(t)
	names := []string{name, name + "-a"}
	if s.Slashes {
		names = append(names, name+"/a")
	}
	long := name + strings.Repeat("x", maxName-1-len(name))
	return append(names, long, long+"0", long+"1")
}
