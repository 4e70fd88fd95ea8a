package lockertest

import (
	"context"
	"fmt"
	"testing"

	"github.com/go-fasteners/fasteners"
)

// testTokens checks that the token of each hold is greater than those of all earlier holds that it
// excludes.
func (s *suite) testTokens(t *testing.T) {
	groups := map[string][]way{}
	for _, w := range s.ways {
		group := "Locks"
		switch {
		case !s.Separate:
		case w.rw:
			group = "ReadersAndWriters"
		default:
			group = "Exclusive"
		}
		if w.held {
			groups[group] = append(groups[group], w)
		}
	}
	for group, ways := range groups {
		t.Run(group, func(t *testing.T) {
			t.Run("InTurn", func(t *testing.T) { s.testTokensInTurn(t, ways) })
			t.Run("OneLock", func(t *testing.T) { s.compete(t, ways, true).checkTokens(t) })
			t.Run("SeveralLocks", func(t *testing.T) { s.compete(t, ways, false).checkTokens(t) })
		})
	}
	s.forEachWay(t, "Function", s.testTokenInFunction, isPlain)
	if s.Lose != nil {
		s.forEachWay(t, "AfterLoss", s.testTokenAfterLoss, isHeld)
	}
}

// testTokensInTurn acquires the lock in all ways, one after the other, each through two values.
func (s *suite) testTokensInTurn(t *testing.T, ways []way) {
	name := lockName(t)
	var accesses []access
	for range 2 {
		for _, w := range ways {
			accesses = append(accesses, s.open(t, name, w))
		}
	}
	var r recorder
	must(t, inParallel(t, 1, func(int) error {
		for range 3 {
			for _, a := range accesses {
				if err := r.hold(context.Background(), a); err != nil {
					return err
				}
			}
		}
		return nil
	}))
	r.checkTokens(t)
}

// testTokenInFunction checks that the function under the lock finds a token, and later ones greater
// tokens.
func (s *suite) testTokenInFunction(t *testing.T, w way) {
	name := lockName(t)
	var r recorder
	for range 3 {
		for _, w := range []way{w, w.exclusive()} {
			a := s.open(t, name, w)
			must(t, a.with(context.Background(), a.lock, func(ctx context.Context) error {
				i := interval{way: w, from: r.clock.Add(1)}
				i.token, i.hasToken = fasteners.Token(ctx)
				i.to = r.clock.Add(1)
				r.intervals = append(r.intervals, i)
				return nil
			}))
		}
	}
	r.checkTokens(t)
}

// testTokenAfterLoss checks that the token of the next holder is greater than that of one that
// has lost the lock, and may not know it.
func (s *suite) testTokenAfterLoss(t *testing.T, w way) {
	name := lockName(t)
	lost := s.open(t, name, w).mustAcquire(t)
	s.Lose(t, name)
	h := s.open(t, name, w.exclusive()).mustAcquire(t)
	before, ok := fasteners.Token(lost.ctx)
	after, alsoOK := fasteners.Token(h.ctx)
	if !ok || !alsoOK || after <= before {
		t.Errorf("tokens are %d (%t), and after a loss %d (%t)", before, ok, after, alsoOK)
	}
	mustRelease(t, h)
	checkError(t, lost.release(), "release", fasteners.ErrLost)
}

// checkTokens checks that tokens are in order.
func (r *recorder) checkTokens(t *testing.T) {
	t.Helper()
	faults := 0
	var example string
	for _, a := range r.intervals {
		if !a.hasToken {
			t.Fatalf("a hold by %s has no token", a.name)
		}
		for _, b := range r.intervals {
			if (!a.shared || !b.shared) && a.to < b.from && a.token >= b.token {
				faults++
				example = fmt.Sprintf("a hold by %s has the token %d, a later one by %s has %d",
					a.name, a.token, b.name, b.token)
			}
		}
	}
	if faults > 0 {
		t.Errorf("%d tokens are not greater than an earlier one: %s", faults, example)
	}
}
