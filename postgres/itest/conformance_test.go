package itest

import (
	"testing"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/lockertest"
	"github.com/go-fasteners/fasteners/postgres"
)

// conformance runs the tests that any lock must pass. Of several DBs, that one is first in the
// queue whose statement arrives first at the server.
func conformance(t *testing.T, oneDB bool, newDBFor func(*testing.T) *postgres.DB) {
	s := commonServer(t)
	admin := s.Connect(t)
	lockertest.Test(t, lockertest.Locks{
		NewLock: func(t *testing.T, name string) fasteners.Locker { return postgres.NewLock(newDBFor(t), name) },
		NewReaderWriterLock: func(t *testing.T, name string) fasteners.ReaderWriterLocker {
			return postgres.NewReaderWriterLock(newDBFor(t), name)
		},
		Lose:     func(t *testing.T, name string) { terminateHolders(t, admin, name) },
		Tokens:   true,
		OneQueue: oneDB,
	})
}

func TestConformance(t *testing.T) {
	s := commonServer(t)
	t.Run("own DB", func(t *testing.T) {
		conformance(t, false, func(t *testing.T) *postgres.DB { return newDB(t, s) })
	})
	t.Run("one DB", func(t *testing.T) {
		db := newDB(t, s)
		conformance(t, true, func(*testing.T) *postgres.DB { return db })
	})
}
