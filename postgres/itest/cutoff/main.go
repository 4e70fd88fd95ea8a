// Command cutoff shows what happens to a holder that is cut off from the server: its context ends
// before somebody else has the lock, and what it writes too late is refused. It starts a server
// of its own.
package main

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/internal/enginetest/faultproxy"
	"github.com/go-fasteners/fasteners/postgres"
	"github.com/go-fasteners/fasteners/postgres/itest/server"
	"github.com/jackc/pgx/v5"
)

const ttl = 3 * time.Second

func main() {
	log.SetFlags(log.Lmicroseconds)
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	s, err := server.Start()
	if err != nil {
		return err
	}
	defer s.Close()
	proxy, err := faultproxy.Start(s.Addr())
	if err != nil {
		return err
	}
	defer proxy.Close()
	far := postgres.New(s.Config(proxy.Addr()), postgres.WithTTL(ttl))
	defer far.Close(ctx)
	near := postgres.New(s.Config(""), postgres.WithTTL(ttl))
	defer near.Close(ctx)

	log.Printf("the server has started: no lock is granted for %v", ttl)
	held, release, err := postgres.NewLock(far, "report").Hold(ctx)
	if err != nil {
		return err
	}
	token, _ := fasteners.Token(held)
	log.Printf("A holds the lock, with token %d", token)
	proxy.Forward(false, false)
	log.Print("A is cut off from the server; B waits for the lock")
	next := make(chan error, 1)
	go func() { next <- second(ctx, near) }()

	<-held.Done()
	log.Printf("A is told: %v", context.Cause(held))
	if err := <-next; err != nil {
		return err
	}
	proxy.Forward(true, true)
	// A context that does not end: this is what a program does that does not care.
	err = postgres.InTx(context.WithoutCancel(held), func(tx pgx.Tx) error { return nil })
	log.Printf("A is connected again, and its late transaction is refused: %v", err)
	log.Printf("A releases the lock: %v", release())
	return nil
}

// second acquires the lock and writes under it.
func second(ctx context.Context, db *postgres.DB) error {
	return fasteners.WithLock(ctx, postgres.NewLock(db, "report"), func(ctx context.Context) error {
		token, ok := fasteners.Token(ctx)
		if !ok {
			return fmt.Errorf("there is no token")
		}
		log.Printf("B holds the lock, with token %d: a store that has seen it refuses that of A", token)
		return postgres.InTx(ctx, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "CREATE TABLE report AS SELECT now()")
			return err
		})
	})
}
