package posix

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners/internal/stress"
)

// canWait skips the test if the kernel cannot wait for locks on the file system of path.
func canWait(t *testing.T, path string) {
	t.Helper()
	if !open(t, path).IsLocal() {
		if os.Getenv("FASTENERS_TEST_STRICT") != "" {
			t.Fatal("missing: a local file system for temporary files")
		}
		t.Skip("missing: a local file system for temporary files")
	}
}

// blockedOn returns when n threads of this process wait for a lock in the kernel.
func blockedOn(t *testing.T, n int32) {
	t.Helper()
	for waits.Load() != n {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(10 * time.Millisecond) // they have been counted just before the call; no result depends on it
}

// Wait returns when the lock is released, and has locked the range.
func TestWait(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	canWait(t, path)
	for _, typ := range []int16{unix.F_WRLCK, unix.F_RDLCK} {
		for name, ctx := range map[string]context.Context{"cancelable": t.Context(), "background": context.Background()} {
			t.Run(name, func(t *testing.T) {
				a, b := open(t, path), open(t, path)
				a.mustTry(t, unix.F_WRLCK, Whole, true)
				done := make(chan error, 1)
				go func() { done <- b.Wait(ctx, typ, Range{0, 10}) }()
				blockedOn(t, 1)
				if len(done) > 0 {
					t.Fatal("it does not wait:", <-done)
				}
				if err := a.Unlock(Whole); err != nil {
					t.Fatal(err)
				}
				if err := <-done; err != nil {
					t.Fatal(err)
				}
				a.mustTry(t, unix.F_WRLCK, Range{9, 0}, false)
				a.mustTry(t, unix.F_WRLCK, Range{10, 0}, true)
			})
		}
	}
}

// Wait returns when its context is done: before the call, near its beginning, or long after.
func TestWaitIsCanceled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	canWait(t, path)
	a, b := open(t, path), open(t, path)
	a.mustTry(t, unix.F_WRLCK, Whole, true)
	check := func(cancelSoon func(cancel func())) {
		t.Helper()
		ctx, cancel := context.WithCancel(context.Background())
		cancelSoon(cancel)
		if err := b.Wait(ctx, unix.F_WRLCK, Whole); err != context.Canceled {
			t.Fatalf("wait: %v", err)
		}
		cancel()
	}
	check(func(cancel func()) { cancel() })
	check(func(cancel func()) { time.AfterFunc(50*time.Millisecond, cancel) })
	for range stress.Rounds() {
		check(func(cancel func()) { time.AfterFunc(rand.N(200*time.Microsecond), cancel) })
	}
	if err := a.Unlock(Whole); err != nil {
		t.Fatal(err)
	}
	a.mustTry(t, unix.F_WRLCK, Whole, true)
	if n := waits.Load(); n != 0 {
		t.Errorf("%d waits are left", n)
	}
}

// A wait that is canceled leaves the locks of its open file description as they were.
func TestCanceledWaitKeepsLocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	canWait(t, path)
	for range 100 {
		a, b := open(t, path), open(t, path)
		a.mustTry(t, unix.F_RDLCK, Whole, true)
		b.mustTry(t, unix.F_RDLCK, Whole, true)
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(rand.N(200*time.Microsecond), cancel)
		if err := b.Wait(ctx, unix.F_WRLCK, Whole); err != context.Canceled {
			t.Fatalf("wait: %v", err)
		}
		if err := a.Unlock(Whole); err != nil {
			t.Fatal(err)
		}
		a.mustTry(t, unix.F_WRLCK, Whole, false)
		if err := b.Unlock(Whole); err != nil {
			t.Fatal(err)
		}
	}
}

// If the kernel grants the lock at the moment at which the context is canceled, Wait tells which
// of the two came first.
func TestGrantMeetsCancellation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	canWait(t, path)
	a, b := open(t, path), open(t, path)
	had := 0
	for range stress.Rounds() {
		a.mustTry(t, unix.F_WRLCK, Whole, true)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- b.Wait(ctx, unix.F_WRLCK, Whole) }()
		for waits.Load() == 0 && len(done) == 0 {
			runtime.Gosched()
		}
		var both sync.WaitGroup
		both.Go(cancel)
		both.Go(func() {
			if err := a.Unlock(Whole); err != nil {
				t.Error(err)
			}
		})
		both.Wait()
		switch err := <-done; err {
		case nil:
			had++
			a.mustTry(t, unix.F_WRLCK, Whole, false)
		case context.Canceled:
			a.mustTry(t, unix.F_WRLCK, Whole, true)
			if err := a.Unlock(Whole); err != nil {
				t.Fatal(err)
			}
			continue
		default:
			t.Fatal(err)
		}
		if err := b.Unlock(Whole); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d had the lock", had)
}

// Many waiters with short deadlines never hold the lock together.
func TestCancelStress(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	canWait(t, path)
	var inside, grants, cancellations atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		d := open(t, path)
		wg.Go(func() {
			for range stress.Rounds() {
				ctx, cancel := context.WithTimeout(context.Background(), rand.N(time.Millisecond))
				err := d.Wait(ctx, unix.F_WRLCK, Whole)
				switch {
				case err == nil:
					grants.Add(1)
					if inside.Add(1) != 1 {
						t.Error("two goroutines hold the lock")
					}
					if rand.N(3) == 0 {
						time.Sleep(rand.N(200 * time.Microsecond))
					}
					inside.Add(-1)
					if err := d.Unlock(Whole); err != nil {
						t.Error(err)
					}
				case err == context.DeadlineExceeded:
					cancellations.Add(1)
				default:
					t.Error(err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	t.Logf("%d grants, %d cancellations", grants.Load(), cancellations.Load())
}

// Wait is not supported where the kernel cannot wait, or could not be made to end the wait.
func TestNoWait(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	canWait(t, path)
	refuses := func(t *testing.T, d *Descriptor) {
		t.Helper()
		if err := d.Wait(t.Context(), unix.F_WRLCK, Whole); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("error is %v", err)
		}
		if err := d.Unlock(Whole); err != nil {
			t.Error(err)
		}
	}
	t.Run("SIGURG is ignored", func(t *testing.T) {
		signal.Ignore(unix.SIGURG)
		refuses(t, open(t, path))
		c := make(chan os.Signal, 1)
		signal.Notify(c, unix.SIGURG) // Reset does not undo Ignore
		signal.Stop(c)
		if signal.Ignored(unix.SIGURG) {
			t.Fatal("SIGURG is still ignored")
		}
	})
	t.Run("the process owns the locks", func(t *testing.T) {
		d := open(t, path)
		d.force(true)
		refuses(t, d)
	})
	t.Run("unknown file system", func(t *testing.T) {
		d := open(t, path)
		d.fileSystem.dev++
		isLocalOn.Store(d.fileSystem, false)
		refuses(t, d)
	})
	t.Run("too many waits", func(t *testing.T) {
		waits.Add(MaxWaits)
		defer waits.Add(-MaxWaits)
		refuses(t, open(t, path))
	})
	t.Run("refused by the file system", func(t *testing.T) { // as by virtiofs
		failing(t, func(cmd int, _ int16) error {
			if cmd == unix.F_OFD_SETLKW {
				return unix.EOPNOTSUPP
			}
			return nil
		})
		refuses(t, open(t, path))
	})
}

// A mount of 9p is not local, though it has the magic number of the server's file system.
func TestMountType(t *testing.T) {
	const table = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
29 22 0:26 / /mnt/a\040b rw,relatime shared:4 master:2 - 9p host rw,trans=virtio
30 22 0:27 / /tmp rw - tmpfs tmpfs rw
130 22 0:28 / /home rw - fuse.sshfs host:/home rw
`
	for id, want := range map[string]string{"22": "ext4", "29": "9p", "30": "tmpfs", "130": "fuse.sshfs"} {
		if got := mountType(table, id); got != want {
			t.Errorf("mount %s: %q, want %q", id, got, want)
		}
	}
	for _, id := range []string{"2", "13", "", "/"} {
		if got := mountType(table, id); got != "" {
			t.Errorf("mount %q: %q", id, got)
		}
	}
	for name, want := range map[string]bool{"ext4": true, "overlay": true, "9p": false, "nfs4": false, "fuse": false, "": false} {
		if localTypes[name] != want {
			t.Errorf("%q is local: %v", name, !want)
		}
	}
}

func TestFileSystemOfProc(t *testing.T) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	if name := fileSystemType(int(f.Fd())); name != "proc" {
		t.Errorf("type is %q", name)
	}
}
