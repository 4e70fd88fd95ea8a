//go:build unix || windows

package fasteners_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners"
)

func init() {
	// hold locks a file, waiting in the way of its third argument, until it is told to
	// release it. Before that, it can be told to try once more.
	helpers["hold"] = func(in *bufio.Reader, args []string) error {
		s, err := sideNamed(args[0], args[1])
		if err != nil {
			return err
		}
		ctx := background
		if len(args) > 2 && args[2] == "cancellable" {
			var cancel context.CancelFunc
			ctx, cancel = context.WithCancel(ctx)
			defer cancel()
		}
		fmt.Println("waiting")
		if err := s.acquire(ctx); err != nil {
			return err
		}
		fmt.Println("held")
		for {
			switch line, err := in.ReadString('\n'); {
			case err != nil:
				return nil // the test is over
			case line == "again\n":
				ok, err := s.try()
				if ok {
					err = s.release()
				}
				if err != nil {
					return err
				}
				fmt.Println(ok)
			default:
				if err := s.release(); err != nil {
					return err
				}
				fmt.Println("released")
				return nil
			}
		}
	}
}

func init() {
	// try tries to lock a file, and tells the outcome.
	helpers["try"] = func(_ *bufio.Reader, args []string) error {
		s, err := sideNamed(args[0], args[1])
		if err != nil {
			return err
		}
		ok, err := s.try()
		fmt.Println(ok)
		return err
	}
}

// startHolder starts a process that holds path.
func startHolder(t testing.TB, path, side string) *process {
	t.Helper()
	p := startHelper(t, "hold", path, side)
	p.expect("waiting")
	p.expect("held")
	return p
}

func (p *process) release() {
	p.t.Helper()
	p.say("release")
	p.expect("released")
}

// Every pair of ways to lock a file, in two processes.
func TestPairsOfProcesses(t *testing.T) {
	for _, theirs := range []string{"exclusive", "read", "write"} {
		for _, waiting := range []string{"blocked", "cancellable"} {
			path := lockPath(t)
			for _, ours := range sides(path) {
				t.Run(theirs+"/"+ours.name+"/"+waiting, func(t *testing.T) {
					ctx := background
					if waiting == "cancellable" {
						ctx = cancellable(t)
					}
					p := startHolder(t, path, theirs)
					if theirs == "read" && ours.shared {
						ours.mustTry(t, true)
						must(t, ours.acquire(ctx))
						ours.mustRelease(t)
						p.release()
						return
					}
					ours.mustTry(t, false)
					done := ours.goAcquire(t, ctx)
					p.release()
					must(t, <-done)

					p = startHelper(t, "hold", path, theirs, waiting)
					p.expect("waiting")
					ours.mustRelease(t)
					p.expect("held")
					ours.mustTry(t, false)
				})
			}
		}
	}
}

// However a holder dies, a waiter gets the lock; and a waiter that dies is not waited for.
func TestDeathFrees(t *testing.T) {
	for _, side := range []string{"exclusive", "read", "write"} {
		for _, waiting := range []string{"blocked", "cancellable"} {
			t.Run(side+"/"+waiting, func(t *testing.T) {
				path := lockPath(t)
				holder := startHolder(t, path, side)
				var waiters []*process
				for range 3 {
					p := startHelper(t, "hold", path, "write", waiting)
					p.expect("waiting")
					waiters = append(waiters, p)
				}
				waiters[1].kill()
				ctx := background
				if waiting == "cancellable" {
					ctx = cancellable(t)
				}
				w := sides(path)[2]
				done := w.goAcquire(t, ctx)
				holder.kill()
				// They get it in any order.
				var wg sync.WaitGroup
				for _, p := range []*process{waiters[0], waiters[2]} {
					wg.Go(func() { p.expect("held"); p.kill() })
				}
				must(t, <-done)
				w.mustRelease(t)
				wg.Wait()
			})
		}
	}
}

// A child of the holder does not keep the lock, whenever and however the holder ends.
func TestChildrenKeepNothing(t *testing.T) {
	path := lockPath(t)
	p := startHelper(t, "parent", path)
	p.expect("held")
	child := p.line()
	p.kill()
	s := sides(path)[0]
	s.mustAcquire(t) // or wait for ever
	s.mustRelease(t)
	pid, err := strconv.Atoi(child)
	must(t, err)
	orphan, err := os.FindProcess(pid)
	must(t, err)
	must(t, orphan.Kill()) // it was alive
}

func init() {
	helpers["parent"] = func(in *bufio.Reader, args []string) error {
		l := fasteners.NewInterProcessLock(args[0])
		if err := l.Acquire(background); err != nil {
			return err
		}
		cmd := helperCommand("sleep")
		if err := cmd.Start(); err != nil {
			return err
		}
		fmt.Println("held")
		fmt.Println(cmd.Process.Pid)
		_, err := in.ReadString('\n')
		return err
	}
	helpers["sleep"] = func(*bufio.Reader, []string) error {
		time.Sleep(time.Minute)
		return nil
	}
	helpers["nothing"] = func(*bufio.Reader, []string) error { return nil }
}

// The only user of a lock never finds it held, not even by a child of its own process
// that is between fork and exec.
func TestExecStorm(t *testing.T) {
	s := sides(lockPath(t))[0]
	stop := make(chan bool)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := helperCommand("nothing").Run(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	tries := 5000
	if testing.Short() {
		tries = 500
	}
	for range tries {
		ok, err := s.try()
		if !ok || err != nil {
			t.Errorf("try: %v, %v", ok, err)
			break
		}
		if err := s.release(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
}

// A journal is where processes note that they are inside: one pipe for all of them, so
// that the kernel puts the notes in order. A holder notes that it has entered after it has
// acquired the lock, and that it leaves before it releases it.
type journal struct {
	lines chan string
	w     *os.File
	procs []*exec.Cmd
	gun   []io.Closer
}

func newJournal(t *testing.T) *journal {
	r, w, err := os.Pipe()
	must(t, err)
	j := &journal{make(chan string, 100), w, nil, nil}
	go func() {
		defer close(j.lines)
		defer r.Close()
		for sc := bufio.NewScanner(r); sc.Scan(); {
			j.lines <- sc.Text()
		}
	}()
	return j
}

// add starts a helper that writes to the journal. All of them read their standard input to
// its end before they begin.
func (j *journal) add(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	in, err := cmd.StdinPipe()
	must(t, err)
	cmd.Stdout = j.w
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	j.procs = append(j.procs, cmd)
	j.gun = append(j.gun, in)
	t.Cleanup(func() { cmd.Process.Kill() })
}

func (j *journal) addHelper(t *testing.T, name string, args ...string) {
	t.Helper()
	j.add(t, helperCommand(name, args...))
}

// run lets the helpers begin and yields their notes, until the last has exited.
func (j *journal) run(t *testing.T, yield func(note []string)) {
	t.Helper()
	for _, in := range j.gun {
		in.Close()
	}
	j.w.Close()
	for line := range j.lines {
		yield(strings.Fields(line))
	}
	for _, cmd := range j.procs {
		must(t, cmd.Wait())
	}
}

// Many goroutines of many processes over handles of all kinds, under several names of the
// file: intervals of holding never overlap against the rules, and no update of a file that
// they protect is lost.
func TestIntervals(t *testing.T) {
	const processes = 8
	path := lockPath(t)
	must(t, os.WriteFile(path, nil, 0o666))
	counter := path + ".counter"
	must(t, os.WriteFile(counter, []byte("0"), 0o666))
	names := []string{path}
	if err := os.Link(path, path+".hard"); err == nil {
		names = append(names, path+".hard")
	}
	if err := os.Symlink(path, path+".soft"); err == nil {
		if _, err := os.Lstat(path + ".soft"); err == nil {
			names = append(names, path+".soft")
		}
	}
	j := newJournal(t)
	for i := range processes {
		j.addHelper(t, "intervals", names[i%len(names)], counter)
	}
	checkIntervals(t, j, counter)
}

// checkIntervals runs the journal of a lock that is never replaced.
func checkIntervals(t *testing.T, j *journal, counter string) {
	t.Helper()
	var readers, writers, together, writes int
	j.run(t, func(note []string) {
		switch note[0] {
		case "+r":
			readers++
			together = max(together, readers)
		case "-r":
			readers--
		case "+w":
			writers++
			writes++
		case "-w":
			writers--
		default:
			t.Fatalf("odd note %q", note)
		}
		if writers > 1 || writers == 1 && readers > 0 {
			t.Errorf("%d writers and %d readers inside", writers, readers)
		}
	})
	content, err := os.ReadFile(counter)
	must(t, err)
	if got := string(content); got != strconv.Itoa(writes) {
		t.Errorf("counter is %s after %d increments", got, writes)
	}
	t.Logf("%d increments, up to %d readers together", writes, together)
}

func increment(counter string) error {
	content, err := os.ReadFile(counter)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(string(content))
	if err != nil {
		return err
	}
	return os.WriteFile(counter, strconv.AppendInt(nil, int64(n+1), 10), 0o666)
}

func init() {
	helpers["intervals"] = func(in *bufio.Reader, args []string) error {
		path, counter := args[0], args[1]
		shared := sides(path)
		if _, err := io.Copy(io.Discard, in); err != nil {
			return err
		}
		var wg sync.WaitGroup
		errs := make(chan error, 8)
		for g := range cap(errs) {
			own := sides(path)
			wg.Go(func() {
				s := shared[g%3]
				if g >= 4 {
					s = own[g%3]
				}
				for i := range 30 {
					if err := holdOnce(s, counter, g+i); err != nil {
						errs <- err
						return
					}
				}
			})
		}
		wg.Wait()
		close(errs)
		return <-errs
	}
}

// holdOnce holds the lock once, having waited for it in the n-th of several ways.
func holdOnce(s side, counter string, n int) error {
	for ok := false; !ok; {
		var err error
		switch n % 4 {
		case 0:
			err = s.acquire(background)
			ok = err == nil
		case 1:
			ctx, cancel := context.WithCancel(background)
			err = s.acquire(ctx)
			ok = err == nil
			cancel()
		case 2:
			ctx, cancel := context.WithTimeout(background, rand.N(5*time.Millisecond))
			err = s.acquire(ctx)
			ok = err == nil
			cancel()
			if errors.Is(err, context.DeadlineExceeded) {
				err = nil
			}
		case 3:
			ok, err = s.try()
			if !ok {
				time.Sleep(rand.N(time.Millisecond)) // or it keeps a core from the others
			}
		}
		if err != nil {
			return err
		}
	}
	var err error
	if s.shared {
		fmt.Println("+r")
		runtime.Gosched()
		fmt.Println("-r")
	} else {
		fmt.Println("+w")
		err = increment(counter)
		fmt.Println("-w")
	}
	return errors.Join(err, s.release()) // also after an error, for which others would wait forever
}

// Processes lock a file that others remove and rename all the time. A file that was
// replaced under its holder protects nothing, which release reports; but those whose
// release reports nothing never were inside together, because during all the time of such
// a hold the path named the locked file.
func TestReplacementStorm(t *testing.T) {
	if !filesCanBeReplacedWhileOpen {
		t.Skip("an open file cannot be removed or moved here")
	}
	path := lockPath(t)
	j := newJournal(t)
	for i := range 4 {
		j.addHelper(t, "replaced", path, strconv.Itoa(i))
	}
	stop := make(chan bool)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(rand.N(2 * time.Millisecond)):
			}
			switch i % 3 {
			case 0:
				os.Remove(path)
			case 1:
				os.Rename(path, path+".old")
			case 2:
				os.WriteFile(path+".new", nil, 0o666)
				os.Rename(path+".new", path)
			}
		}
	})

	type hold struct{ from, to int }
	var whole []hold // those during which the file was not replaced
	inside := map[string]hold{}
	n, replaced := 0, 0
	j.run(t, func(note []string) {
		n++
		who := note[1]
		switch note[0] {
		case "+":
			inside[who] = hold{from: n}
		case "-":
			inside[who] = hold{inside[who].from, n}
		case "ok":
			whole = append(whole, inside[who])
		case "replaced":
			replaced++
		default:
			t.Fatalf("odd note %q", note)
		}
	})
	close(stop)
	wg.Wait()
	slices.SortFunc(whole, func(a, b hold) int { return a.from - b.from })
	for i := 1; i < len(whole); i++ {
		if whole[i].from < whole[i-1].to {
			t.Errorf("two holders: %v and %v", whole[i-1], whole[i])
		}
	}
	if replaced == 0 || len(whole) == 0 {
		t.Errorf("%d holds with and %d without a replaced file: nothing was tested", replaced, len(whole))
	}
	t.Logf("%d holds of a file in its place, %d of a replaced one", len(whole), replaced)
}

// A holder may remove the file as the last thing that it does. All who wait, with whatever
// they have open, start over on the next file; nobody is inside with anybody else.
func TestRemovedByTheHolder(t *testing.T) {
	if !filesCanBeReplacedWhileOpen {
		t.Skip("an open file cannot be removed or moved here")
	}
	path := lockPath(t)
	j := newJournal(t)
	for i := range 4 {
		j.addHelper(t, "remover", path, strconv.Itoa(i))
	}
	inside := 0
	j.run(t, func(note []string) {
		switch note[0] {
		case "+":
			inside++
		case "-":
			inside--
		}
		if inside > 1 {
			t.Errorf("%d holders", inside)
		}
	})
}

func init() {
	storm := func(in *bufio.Reader, args []string, holds int, remove bool) error {
		path, who := args[0], args[1]
		if _, err := io.Copy(io.Discard, in); err != nil {
			return err
		}
		var wg sync.WaitGroup
		errs := make(chan error, 4)
		for g := range cap(errs) {
			who := who + "." + strconv.Itoa(g)
			s := sides(path)[g%2*2] // exclusive or write
			wg.Go(func() {
				for i := range holds {
					ctx, cancel := background, func() {}
					if i%2 == 0 {
						ctx, cancel = context.WithCancel(background)
					}
					err := s.acquire(ctx)
					cancel()
					if err != nil {
						errs <- err
						return
					}
					fmt.Println("+", who)
					runtime.Gosched()
					fmt.Println("-", who)
					if remove && i%2 == 0 {
						if err := os.Remove(path); err != nil {
							errs <- err
							return
						}
					}
					err = s.release()
					switch {
					case remove && errors.Is(err, fasteners.ErrReplaced) == (i%2 == 0):
					case remove:
						errs <- fmt.Errorf("release %d: %w", i, err)
						return
					case err == nil:
						fmt.Println("ok", who)
					case errors.Is(err, fasteners.ErrReplaced):
						fmt.Println("replaced", who)
					default:
						errs <- err
						return
					}
				}
			})
		}
		wg.Wait()
		close(errs)
		return <-errs
	}
	helpers["replaced"] = func(in *bufio.Reader, args []string) error { return storm(in, args, 1000, false) }
	helpers["remover"] = func(in *bufio.Reader, args []string) error { return storm(in, args, 100, true) }
}

// Waiters give up by the thousand, while the lock goes from process to process, and leave
// nothing behind.
func TestCancellationStorm(t *testing.T) {
	path := lockPath(t)
	busy := startHelper(t, "toggle", path)
	p := startHelper(t, "storm", path)
	p.expect("over")
	busy.finish()
}

func init() {
	// toggle locks and unlocks until its input ends.
	helpers["toggle"] = func(in *bufio.Reader, args []string) error {
		s := sides(args[0])[2]
		over := make(chan bool)
		go func() { io.Copy(io.Discard, in); close(over) }()
		for {
			if err := s.acquire(background); err != nil {
				return err
			}
			select {
			case <-over:
				return s.release()
			case <-time.After(rand.N(3 * time.Millisecond)):
			}
			if err := s.release(); err != nil {
				return err
			}
		}
	}
	helpers["storm"] = func(in *bufio.Reader, args []string) error {
		path := args[0]
		go exitAtEnd(in)
		storm := func() error {
			var wg sync.WaitGroup
			errs := make(chan error, 200)
			for g := range cap(errs) {
				s := sides(path)[g%3]
				wg.Go(func() {
					for range 20 {
						ctx, cancel := context.WithTimeout(background, rand.N(20*time.Millisecond))
						err := s.acquire(ctx)
						if err == nil {
							err = s.release()
						}
						cancel()
						if err != nil && !errors.Is(err, context.DeadlineExceeded) {
							errs <- err
							return
						}
					}
				})
			}
			wg.Wait()
			close(errs)
			return <-errs
		}
		before := resources(path)
		if err := storm(); err != nil { // makes what the runtime keeps for itself
			return err
		}
		before = settled(path, before)
		if err := storm(); err != nil {
			return err
		}
		after := settled(path, before)
		if after.threads > before.threads+8 {
			return fmt.Errorf("%d threads before, %d after", before.threads, after.threads)
		}
		fmt.Println("over")
		return nil
	}
}

// usage is what a process has. What a system does not tell is 0.
type usage struct {
	goroutines, descriptors, threads int
	locked                           int // of the descriptors, those of the lock file
}

// settled waits until there is no more than before, which would hang if something were left
// behind. What is not part of the lock is given the time to end: timers and the like.
func settled(path string, before usage) usage {
	for {
		u := resources(path)
		// The runtime opens what it needs to wait for files once and keeps it.
		if u.goroutines <= before.goroutines && u.descriptors <= before.descriptors+2 && u.locked <= before.locked {
			return u
		}
		time.Sleep(time.Millisecond)
	}
}

// Twenty thousand goroutines wait for a lock that another process holds. All get it, and
// meanwhile they are cheap.
func TestCrowd(t *testing.T) {
	path := lockPath(t)
	holder := startHolder(t, path, "exclusive")
	n := 20000
	if testing.Short() {
		n = 2000
	}
	p := startHelper(t, "crowd", path, strconv.Itoa(n))
	p.expect("waiting")
	threads, err := strconv.Atoi(p.line())
	must(t, err)
	locked, err := strconv.Atoi(p.line())
	must(t, err)
	t.Logf("%d threads, %d descriptors of the lock file", threads, locked)
	if threads > 64 {
		t.Errorf("%d threads", threads)
	}
	if locked > 1 {
		t.Errorf("%d descriptors of the lock file", locked)
	}
	holder.release()
	p.expect("all had it")
}

func init() {
	helpers["crowd"] = func(in *bufio.Reader, args []string) error {
		path := args[0]
		go exitAtEnd(in)
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(background, time.Hour)
		defer cancel()
		one := fasteners.NewInterProcessLock(path)
		var wg sync.WaitGroup
		errs := make(chan error, n)
		inside := 0
		for g := range n {
			l := one
			if g%2 == 0 {
				l = fasteners.NewInterProcessLock(path)
			}
			wg.Go(func() {
				if err := l.Acquire(ctx); err != nil {
					errs <- err
					return
				}
				inside++ // the lock protects it, and the race detector knows
				if err := l.Release(); err != nil {
					errs <- err
				}
			})
		}
		waitUntilWaiting(n)
		u := resources(path)
		fmt.Println("waiting")
		fmt.Println(u.threads)
		fmt.Println(u.locked)
		wg.Wait()
		close(errs)
		if err := <-errs; err != nil {
			return err
		}
		if inside != n {
			return fmt.Errorf("%d of %d were inside", inside, n)
		}
		fmt.Println("all had it")
		return nil
	}
}

// waitUntilWaiting waits until n goroutines wait for locks, in a queue or as leaders.
func waitUntilWaiting(n int) {
	for room := n + 100; ; {
		stacks := make([]runtime.StackRecord, room)
		have, ok := runtime.GoroutineProfile(stacks)
		if !ok {
			room *= 2
			continue
		}
		waiting := 0
		for _, r := range stacks[:have] {
			frames := runtime.CallersFrames(r.Stack())
			for more := true; more; {
				var f runtime.Frame
				f, more = frames.Next()
				if strings.HasSuffix(f.Function, "table.(*waiter).block") || strings.HasSuffix(f.Function, "table.(*entry).wait") {
					waiting++
					break
				}
			}
		}
		if waiting >= n {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// The lock file is created once, however many goroutines find it missing.
func TestCrowdCreatesTheFile(t *testing.T) {
	for range 20 {
		path := filepath.Join(t.TempDir(), "a", "b", "lock")
		var wg sync.WaitGroup
		for range 100 {
			s := sides(path)[rand.N(3)]
			wg.Go(func() {
				if err := s.acquire(background); err != nil {
					t.Error(err)
					return
				}
				if err := s.release(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
}

// A writer that waits for readers of other processes is not passed by new ones, of whatever
// process; unless that is what it wants.
func TestWriterIsNotPassed(t *testing.T) {
	for _, waiting := range []string{"blocked", "cancellable"} {
		t.Run(waiting, func(t *testing.T) {
			path := lockPath(t)
			inside := startHolder(t, path, "read")
			ours := sides(path)[1]
			w := startHelper(t, "hold", path, "write", waiting)
			w.expect("waiting")
			mustBecome(t, ours, false)
			// Not in the process of the reader, either, as soon as it has to look.
			for {
				inside.say("again")
				if inside.line() == "false" {
					break
				}
			}
			done := ours.goAcquire(t, cancellable(t))
			inside.release()
			w.expect("held")
			w.release()
			must(t, <-done)
			ours.mustRelease(t)
		})
	}
	t.Run("dies", func(t *testing.T) {
		path := lockPath(t)
		startHolder(t, path, "read")
		ours := sides(path)[1]
		w := startHelper(t, "hold", path, "write", "cancellable")
		w.expect("waiting")
		mustBecome(t, ours, false)
		done := ours.goAcquire(t, cancellable(t))
		w.kill()
		must(t, <-done)
		ours.mustRelease(t)
	})
	t.Run("gives up", func(t *testing.T) {
		path := lockPath(t)
		startHolder(t, path, "read")
		ours := sides(path)[1]
		ours.mustAcquire(t)
		w := startHelper(t, "give up", path)
		w.expect("waiting")
		mustBecome(t, sides(path)[1], false) // as a reader of our process, too
		done := ours.goAcquire(t, cancellable(t))
		w.finish()
		must(t, <-done) // while others are inside
		ours.mustRelease(t)
		ours.mustRelease(t)
	})
	t.Run("reader preference", func(t *testing.T) {
		path := lockPath(t)
		startHolder(t, path, "read")
		ctx, cancel := context.WithCancel(background)
		done := sides(path, fasteners.WithReaderPreference())[2].goAcquire(t, ctx)
		for range 20 {
			p := startHelper(t, "try", path, "read")
			p.expect("true")
			p.finish()
		}
		cancel()
		checkError(t, <-done, "acquire", path, context.Canceled)
	})
}

// mustBecome tries until the outcome is what is wanted.
func mustBecome(t *testing.T, s side, want bool) {
	t.Helper()
	for {
		ok, err := s.try()
		must(t, err)
		if ok {
			s.mustRelease(t)
		}
		if ok == want {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func init() {
	// give up waits as a writer until its input ends.
	helpers["give up"] = func(in *bufio.Reader, args []string) error {
		ctx, cancel := context.WithCancel(background)
		go func() { io.Copy(io.Discard, in); cancel() }()
		fmt.Println("waiting")
		if err := sides(args[0])[2].acquire(ctx); !errors.Is(err, context.Canceled) {
			return fmt.Errorf("error is %v", err)
		}
		return nil
	}
}

// Between write lock and read lock there is no instant for another writer, but all readers get
// in.
func TestDowngrade(t *testing.T) {
	path := lockPath(t)
	l := fasteners.NewInterProcessReaderWriterLock(path)
	checkError(t, l.Downgrade(), "downgrade", path, fasteners.ErrNotAcquired)
	must(t, l.AcquireReadLock(background))
	checkError(t, l.Downgrade(), "downgrade", path, fasteners.ErrNotAcquired)
	must(t, l.ReleaseReadLock())

	must(t, l.AcquireWriteLock(background))
	r, w := sides(path)[1], sides(path)[2]
	here := r.goAcquire(t, background)
	writerHere := w.goAcquire(t, background)
	there := startHelper(t, "hold", path, "read", "cancellable")
	there.expect("waiting")
	writerThere := startHelper(t, "hold", path, "write")
	writerThere.expect("waiting")
	must(t, l.Downgrade())
	checkError(t, l.ReleaseWriteLock(), "release", path, fasteners.ErrNotAcquired)
	must(t, <-here)
	sides(path)[2].mustTry(t, false)
	must(t, l.ReleaseReadLock())
	checkError(t, l.ReleaseReadLock(), "release", path, fasteners.ErrNotAcquired)
	there.kill() // it may have got in, or wait for the writer that has locked pending
	select {
	case err := <-writerHere:
		t.Errorf("a writer is inside with a reader (error %v)", err)
	default:
	}
	r.mustRelease(t)
	writerThere.kill()
	must(t, <-writerHere)
	w.mustRelease(t)
}

// A storm of writers that go on as readers: what they have read under the write lock is there.
func TestDowngradeStorm(t *testing.T) {
	path := lockPath(t)
	counter := path + ".counter"
	must(t, os.WriteFile(counter, []byte("0"), 0o666))
	j := newJournal(t)
	for range 4 {
		j.addHelper(t, "downgrade", path, counter)
	}
	checkIntervals(t, j, counter)
}

func init() {
	helpers["downgrade"] = func(in *bufio.Reader, args []string) error {
		path, counter := args[0], args[1]
		if _, err := io.Copy(io.Discard, in); err != nil {
			return err
		}
		var wg sync.WaitGroup
		errs := make(chan error, 4)
		for range cap(errs) {
			wg.Go(func() {
				l := fasteners.NewInterProcessReaderWriterLock(path)
				for range 50 {
					err := l.AcquireWriteLock(background)
					if err != nil {
						errs <- err
						return
					}
					fmt.Println("+w")
					if err := increment(counter); err != nil {
						errs <- err
						return
					}
					mine, _ := os.ReadFile(counter)
					fmt.Println("-w")
					if err := l.Downgrade(); err != nil {
						errs <- err
						return
					}
					fmt.Println("+r")
					if now, _ := os.ReadFile(counter); string(now) != string(mine) {
						errs <- fmt.Errorf("counter was %s, is %s", mine, now)
						return
					}
					fmt.Println("-r")
					if err := l.ReleaseReadLock(); err != nil {
						errs <- err
						return
					}
				}
			})
		}
		wg.Wait()
		close(errs)
		return <-errs
	}
}

// A waiter behind a file that was replaced comes to the new one, which is free, though the
// holder of the old one, or a goroutine that waits for that in the kernel, stays for ever.
func TestReplacedWhileInTheQueue(t *testing.T) {
	if !filesCanBeReplacedWhileOpen {
		t.Skip("an open file cannot be removed or moved here")
	}
	for _, behind := range []string{"holder here", "leader that never gives up", "leader"} {
		t.Run(behind, func(t *testing.T) {
			path := lockPath(t)
			must(t, os.WriteFile(path, nil, 0o666))
			other := path + ".other"
			must(t, os.Link(path, other))
			switch behind {
			case "holder here":
				h := sides(path)[0]
				h.mustAcquire(t)
				defer h.release()
			case "leader that never gives up":
				startHolder(t, path, "exclusive")
				sides(path)[0].goAcquire(t, background)
			case "leader":
				startHolder(t, path, "exclusive")
				sides(path)[0].goAcquire(t, cancellable(t))
			}
			// One by another name of the file, behind one by the first, who is not concerned.
			done := sides(path)[0].goAcquire(t, cancellable(t))
			by := sides(other)[0]
			doneByOther := by.goAcquire(t, cancellable(t))
			must(t, os.Remove(other))
			must(t, <-doneByOther)
			by.mustRelease(t)

			if behind != "holder here" {
				return // the leader may be the first to have the new file, and keeps it
			}
			must(t, os.Rename(path, path+".old"))
			sides(path)[0].mustTry(t, true) // who comes now gets it
			must(t, <-done)
		})
	}
}

// Who never wants to poll says so with a very long interval.
func TestLongestPollInterval(t *testing.T) {
	for _, heldBy := range []string{"this process", "another process"} {
		t.Run(heldBy, func(t *testing.T) {
			path := lockPath(t)
			if heldBy == "this process" {
				h := sides(path)[0]
				h.mustAcquire(t)
				defer h.release()
			} else {
				startHolder(t, path, "write")
			}
			ctx, cancel := context.WithTimeout(background, 50*time.Millisecond)
			defer cancel()
			for _, s := range sides(path, fasteners.WithPollInterval(math.MaxInt64, 0)) {
				if err := s.acquire(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("error is %v", err)
				}
			}
		})
	}
}
