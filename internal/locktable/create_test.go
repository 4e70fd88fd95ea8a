package locktable

import (
	"context"
	"errors"
	"io/fs"
	"testing"
	"testing/synctest"
	"time"
)

// One goroutine creates the file, and the others wait for it. Each of them can be canceled
// meanwhile, and the one that creates the file may fail.
func TestCreate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel()
		table := New(&proc{kernel: k, fail: map[string]error{"create": fs.ErrPermission}}, 0)
		resume := k.holdBack("create")
		ctx, cancel := context.WithCancel(t.Context())
		creator := goLock(t.Context(), table, request(path), Exclusive)
		canceled := goLock(ctx, table, request(path), Exclusive)
		other := goLock(t.Context(), table, request(path), Exclusive)
		cancel()
		synctest.Wait()
		if len(creator) > 0 || len(other) > 0 {
			t.Fatal("a goroutine does not wait until the file has been created")
		}
		if len(canceled) == 0 {
			t.Fatal("a canceled goroutine waits until the file has been created")
		}
		if err := receive(t, canceled); !errors.Is(err, context.Canceled) {
			t.Errorf("error is %v", err)
		}
		resume()
		if err := receive(t, creator); err != fs.ErrPermission {
			t.Errorf("error is %v", err)
		}
		must(t, receive(t, other))
		mustBeEmpty(t, table)
	})
}

// A goroutine that is canceled just after it has created the file leaves no descriptor behind.
func TestCreatorIsCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel()
		table := New(&proc{kernel: k}, time.Millisecond)
		resume := k.holdBack("create")
		ctx, cancel := newLateContext(t)
		creator := goAcquire(ctx, table, request(path), Exclusive)
		cancel()
		resume()
		creator.mustFail(t, context.Canceled)
		time.Sleep(time.Second)
		synctest.Wait()
		if n := table.size(); n > 0 {
			t.Errorf("%d entries are left in the table", n)
		}
		mustBeClean(t, k)
	})
}
