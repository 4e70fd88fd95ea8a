package postgres_test

import (
	"context"
	"errors"
	"log"

	"github.com/go-fasteners/fasteners"
	"github.com/go-fasteners/fasteners/postgres"
	"github.com/jackc/pgx/v5"
)

func Example() {
	ctx := context.Background()
	config, err := pgx.ParseConfig("postgres://localhost/report")
	if err != nil {
		log.Fatal(err)
	}
	db := postgres.New(config)
	defer db.Close(ctx)
	lock := postgres.NewLock(db, "report")

	err = fasteners.WithLock(ctx, lock, func(ctx context.Context) error { // ctx ends if the lock is lost
		return postgres.InTx(ctx, func(tx pgx.Tx) error { // cannot commit without the lock
			_, err := tx.Exec(ctx, "UPDATE report SET total = total + 1")
			return err
		})
	})
	if errors.Is(err, fasteners.ErrLost) {
		log.Print("somebody else may have had the lock: ", err)
	}
}
