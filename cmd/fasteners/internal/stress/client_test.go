package stress

import (
	"slices"
	"testing"

	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/worker"
)

func TestStressSeed(t *testing.T) {
	crew, err := worker.NewCrew(t.TempDir(), "", 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { crew.Close() })
	choices := func(seed, process uint64, number int) []int {
		place := crew.Place(0)
		place.Process = process
		g := &generator{order: order{Place: place, Seed: seed, Removals: true}, board: crew.Board}
		c := g.newClient(number)
		var ops []int
		for range 1000 {
			op, _, _ := c.choose()
			ops = append(ops, op)
		}
		return ops
	}
	first := choices(1, 1, 0)
	if !slices.Equal(first, choices(1, 1, 0)) {
		t.Error("the same seed leads to other operations")
	}
	for op, name := range operationNames {
		if !slices.Contains(first, op) {
			t.Errorf("of %d operations none is %s", len(first), name)
		}
	}
	for _, other := range [][]int{choices(2, 1, 0), choices(1, 2, 0), choices(1, 1, 1)} {
		if slices.Equal(first, other) {
			t.Error("another seed, process or goroutine chooses the same operations")
		}
	}
}
