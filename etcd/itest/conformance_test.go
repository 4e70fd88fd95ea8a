package itest

import (
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/etcd"
	"github.com/go-fasteners/fasteners/lockertest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	addr := embedded(t)
	admin := newClient(t, addr)
	const long = 30 * time.Second // locks are lost here only when Lose says so
	shared := newSession(t, admin, etcd.WithTTL(long))
	for name, session := range map[string]func(*testing.T) *etcd.Session{
		"one session":  func(*testing.T) *etcd.Session { return shared },
		"own sessions": func(t *testing.T) *etcd.Session { return newSession(t, newClient(t, addr), etcd.WithTTL(long)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lockertest.Test(t, lockertest.Locks{
				NewLock: func(t *testing.T, name string) fasteners.Locker {
					return etcd.NewLock(session(t), name)
				},
				NewReaderWriterLock: func(t *testing.T, name string) fasteners.ReaderWriterLocker {
					return etcd.NewReaderWriterLock(session(t), name)
				},
				Lose:     func(t *testing.T, name string) { revokeHolders(t, admin, name) },
				Tokens:   true,
				OneQueue: true,
				Slashes:  true,
			})
		})
	}
}
