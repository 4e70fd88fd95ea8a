package fasteners_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/go-fasteners/fasteners"
)

const (
	filesCanBeReplacedWhileOpen = false
	filesHavePermissions        = false

	errIsDirectory  = syscall.EISDIR
	errNotDirectory = syscall.ENOTDIR
)

// A release wakes those who poll.
const restWherePolling = time.Duration(0)

// byEvents returns sides that wait for events alone.
func byEvents(path string) []side {
	var all []side
	for _, s := range sides(path) {
		var release func() error
		s.acquire = func(ctx context.Context) (err error) {
			release, err = fasteners.LockByEvents(ctx, path, !s.shared)
			return err
		}
		s.release = func() error { return release() }
		all = append(all, s)
	}
	return all
}

// There is no other way to wait with which to compare ours.
var waysOfProcesses = []string{"ours"}

func blockingLock(string) (acquire, release func() error) { return nil, nil }

// Every spelling of a path that names the file is the same lock.
func TestSpellings(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	path := filepath.Join(dir, "Lock")
	volume, rest := path[:2], path[2:]
	must(t, os.WriteFile(path, nil, 0o666))
	deep := filepath.Join(dir, strings.Repeat("deep", 20))
	relative := filepath.Join(strings.Repeat("long", 20), strings.Repeat("longer", 20), "lock")
	long := filepath.Join(deep, relative)
	for _, test := range []struct{ name, path, other string }{
		{"other case", path, filepath.Join(dir, "lOCK")},
		{"slashes", path, filepath.ToSlash(path)},
		{"extended", path, `\\?\` + path},
		{"device", path, `\\.\` + path},
		{"of the volume", path, rest},
		{"of the directory", path, volume + "Lock"},
		{"dot behind", path, path + "."},
		{"space behind", path, path + " "},
		{"long", long, `\\?\` + long},
		{"long with slashes", long, filepath.ToSlash(long)},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, a := range sides(test.path) {
				for _, b := range sides(test.other) {
					testPair(t, a, b)
				}
			}
			startHolder(t, test.path, "exclusive")
			sides(test.other)[1].mustTry(t, false)
		})
	}

	t.Run("long but for the current directory", func(t *testing.T) {
		t.Chdir(deep)
		testPair(t, sides(relative)[0], sides(long)[2])
	})
	t.Run("network", func(t *testing.T) {
		shared := `\\localhost\` + volume[:1] + "$" + rest
		if _, err := os.Stat(shared); err != nil {
			t.Skipf("no file server: %v", err)
		}
		testPair(t, sides(path)[0], sides(shared)[2])
	})
}

// Outside the name space of files some names look as if they were in it.
func TestNotFiles(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, nil, 0o666))
	for _, test := range []struct {
		path   string
		target error
	}{
		{"NUL", fs.ErrInvalid},
		{"nul", fs.ErrInvalid},
		{`\\.\NUL`, fs.ErrInvalid},
		{file + ":stream", fs.ErrInvalid},
		{file + "::$DATA", fs.ErrInvalid},
		{dir + `\`, syscall.EISDIR},
		{dir + `\missing\`, fs.ErrInvalid},
		{dir + `\missing/`, fs.ErrInvalid},
		{dir + `\missing\missing\`, fs.ErrInvalid},
		{file + `\`, nil},
		{dir + `\*`, windows.ERROR_INVALID_NAME},
		{dir + `\a|b`, windows.ERROR_INVALID_NAME},
		{`\\.\pipe\fasteners\missing`, nil},
		{`\\localhost\missing\lock`, nil},
		{`\\?\UNC\localhost\missing\lock`, nil},
		{"CON", nil}, // there may be none
		{"CONIN$", nil},
		{dir + `\CON`, nil},
		{`\\.\COM77`, nil},
	} {
		t.Run(test.path, func(t *testing.T) {
			if test.target != nil {
				checkRefused(t, test.path, test.target)
				return
			}
			for _, s := range sides(test.path) {
				ok, err := s.try()
				if ok || err == nil {
					t.Errorf("try to get the %s lock: %v, %v", s.name, ok, err)
				}
				t.Log(err)
			}
		})
	}
	entries, err := os.ReadDir(dir)
	must(t, err)
	if len(entries) != 1 {
		t.Errorf("files and directories were made: %v", entries)
	}

	// In one form of path these are names like others.
	testPair(t, sides(`\\?\` + dir + `\NUL`)[0], sides(`\\?\` + dir + `\NUL`)[2])
	must(t, os.Remove(`\\?\`+dir+`\NUL`))
}

// A file that may not be written can be locked by readers.
func TestReadOnlyFile(t *testing.T) {
	path := lockPath(t)
	sides(path, fasteners.WithFileMode(0o444))[1].mustTry(t, true)
	t.Cleanup(func() { os.Chmod(path, 0o666) }) // so that Wine can remove it
	fi, err := os.Stat(path)
	must(t, err)
	if fi.Mode().Perm() != 0o444 {
		t.Errorf("mode is %v", fi.Mode())
	}
	if f, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
		f.Close()
		t.Skip("a read-only file can be written here: Wine, run by root")
	}
	for range 2 {
		for _, s := range sides(path) {
			if s.shared {
				s.mustTry(t, true)
				s.mustAcquire(t)
				s.mustRelease(t)
			} else {
				checkError(t, s.acquire(background), "acquire", path, fs.ErrPermission)
			}
		}
	}

	// Even while others have it open for writing.
	must(t, os.Chmod(path, 0o666))
	w := sides(path)[2]
	w.mustAcquire(t)
	must(t, os.Chmod(path, 0o444))
	r := sides(path)[1]
	done := r.goAcquire(t, background)
	w.mustRelease(t)
	must(t, <-done)
	r.mustRelease(t)
}

// Where nothing can be made, acquire says so.
func TestNoDirectoryCanBeMade(t *testing.T) {
	drives, err := windows.GetLogicalDrives()
	must(t, err)
	letter := 'A'
	for ; drives&1 != 0; drives >>= 1 {
		letter++
	}
	none := string(letter) + ":"
	for _, path := range []string{none + `\lock`, none + `\a\lock`, none + `\a\b\lock`, none + "lock", none + `a\b\lock`, `\\?\` + none + `\a\lock`} {
		if err := fasteners.NewInterProcessLock(path).Acquire(background); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// The file cannot be removed, moved or replaced under a lock, or behind the back of one who
// waits. Then it can.
func TestRemovalWhileHeld(t *testing.T) {
	for i, name := range []string{"exclusive", "read", "write"} {
		t.Run(name, func(t *testing.T) {
			path := lockPath(t)
			must(t, os.WriteFile(path+".new", nil, 0o666))
			untouchable := func(who string) {
				t.Helper()
				if os.Remove(path) == nil || os.Rename(path, path+".old") == nil || os.Rename(path+".new", path) == nil {
					t.Errorf("%s: the file can be removed, moved or replaced", who)
				}
			}
			s := sides(path)[i]
			s.mustAcquire(t)
			untouchable("holder")
			s.mustRelease(t)

			p := startHolder(t, path, "exclusive")
			done := s.goAcquire(t, cancellable(t))
			untouchable("holder in another process, waiter")
			p.kill()
			must(t, <-done)
			untouchable("holder that was a waiter")
			s.mustRelease(t)

			must(t, os.Rename(path+".new", path))
			s.mustTry(t, true)
			must(t, os.Remove(path))
		})
	}
}

// Python's fasteners opens the lock file so, and locks it so.
func TestLockOfAnotherProgram(t *testing.T) {
	path := lockPath(t)
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	must(t, err)
	defer f.Close()
	h := windows.Handle(f.Fd())
	try := func(flags uint32) error {
		return windows.LockFileEx(h, flags|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, new(windows.Overlapped))
	}
	unlock := func() { must(t, windows.UnlockFileEx(h, 0, 1, 0, new(windows.Overlapped))) }

	for _, s := range sides(path) {
		for _, flags := range []uint32{0, windows.LOCKFILE_EXCLUSIVE_LOCK} {
			both := s.shared && flags == 0
			must(t, try(flags))
			s.mustTry(t, both)
			if !both {
				// It wakes nobody: here the waiter has to poll.
				done := s.goAcquire(t, cancellable(t))
				unlock()
				must(t, <-done)
			} else {
				unlock()
				s.mustAcquire(t)
			}
			switch err := try(flags); {
			case both && err == nil:
				unlock()
			case both || err != windows.ERROR_LOCK_VIOLATION:
				t.Errorf("lock of the other program beside our %s lock: %v", s.name, err)
			}
			s.mustRelease(t)
		}
	}
}

// startWaiter starts a process that waits for a lock of another, by events alone.
func startWaiter(t testing.TB, path, side string) *process {
	p := startHelper(t, "patient", path, side)
	p.expect("waiting")
	return p
}

func init() {
	// patient waits for a lock that is held, until it has it or is told something. When it
	// has it, it waits to be told, and releases it.
	helpers["patient"] = func(in *bufio.Reader, args []string) error {
		i := slices.Index([]string{"exclusive", "read", "write"}, args[1])
		s := byEvents(args[0])[i]
		ctx, cancel := context.WithCancel(background)
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- s.acquire(ctx) }()
		select {
		case <-done:
			return errors.New("the lock is free")
		case <-time.After(10 * time.Millisecond):
		}
		fmt.Println("waiting")
		told := make(chan string)
		go func() {
			for {
				line, err := in.ReadString('\n')
				if err != nil {
					os.Exit(0) // the test is over
				}
				told <- strings.TrimSpace(line)
			}
		}()
		select {
		case err := <-done:
			if err != nil {
				return err
			}
			fmt.Println("held")
			<-told
		case <-told:
			cancel()
			if err := <-done; err != nil {
				return nil
			}
		}
		if err := s.release(); err != nil {
			return err
		}
		fmt.Println("released")
		return nil
	}
}

// A release wakes a waiter of another process.
func TestReleaseWakes(t *testing.T) {
	for i, ours := range []string{"exclusive", "read", "write"} {
		for _, theirs := range []string{"exclusive", "read", "write"} {
			if ours == "read" && theirs == "read" {
				continue
			}
			t.Run(ours+"/"+theirs, func(t *testing.T) {
				path := lockPath(t)
				s := byEvents(path)[i]
				s.mustAcquire(t)
				p := startWaiter(t, path, theirs)
				s.mustRelease(t)
				p.expect("held")
				done := s.goAcquire(t, cancellable(t))
				p.release()
				must(t, <-done)
				s.mustRelease(t)
			})
		}
	}
}

// A waiter that is woken and gives up wakes another. Those who give up are the first to
// wait, and so the first to be woken.
func TestCancelledWaiterPassesTheWakeOn(t *testing.T) {
	for _, mode := range []string{"read", "write"} {
		for range 10 {
			path := lockPath(t)
			holder := sides(path)[0]
			holder.mustAcquire(t)
			fickle := []*process{startWaiter(t, path, mode), startWaiter(t, path, mode)}
			last := startWaiter(t, path, mode)
			fickle[0].say("give up")
			holder.mustRelease(t)
			fickle[1].say("give up")
			last.expect("held")
			for _, p := range fickle {
				p.finish()
			}
			last.release()
		}
	}
}

// One release lets all waiting readers in: each wakes the next.
func TestReadersWakeReaders(t *testing.T) {
	path := lockPath(t)
	holder := sides(path)[0]
	holder.mustAcquire(t)
	var readers []*process
	for range 4 {
		readers = append(readers, startWaiter(t, path, "read"))
	}
	holder.mustRelease(t)
	for _, p := range readers {
		p.expect("held")
	}
	for _, p := range readers {
		p.release()
	}
}

// No wake-up is lost when many processes come, go and give up.
func TestNoWakeIsLost(t *testing.T) {
	path := lockPath(t)
	var all []*process
	for range 4 {
		all = append(all, startHelper(t, "impatient", path))
	}
	for _, p := range all {
		p.say("go")
	}
	for _, p := range all {
		p.expect("done")
		p.finish()
	}
}

func init() {
	helpers["impatient"] = func(in *bufio.Reader, args []string) error {
		if _, err := in.ReadString('\n'); err != nil {
			return err
		}
		s := byEvents(args[0])
		for i := range 200 {
			ctx, cancel := context.WithCancel(background)
			if i%4 == 3 {
				ctx, cancel = context.WithTimeout(background, rand.N(10*time.Millisecond))
			}
			err := s[i%3].acquire(ctx)
			cancel()
			if err == nil {
				err = s[i%3].release()
			}
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				return err
			}
		}
		fmt.Println("done")
		return nil
	}
}

// How long it takes from a release to the next holder in another process, which has waited
// for a while.
func BenchmarkHandOff(b *testing.B) {
	for _, way := range []string{"deadline", "poll every 10 ms", "blocked"} {
		b.Run(way, func(b *testing.B) {
			path := lockPath(b)
			s := sides(path)[0]
			p := startHelper(b, "wait and tell", path, way)
			var latencies []time.Duration
			for b.Loop() {
				s.mustAcquire(b)
				p.say("wait")
				p.expect("waiting")
				time.Sleep(20*time.Millisecond + rand.N(10*time.Millisecond))
				from := clock()
				s.mustRelease(b)
				to, err := time.ParseDuration(p.line())
				must(b, err)
				latencies = append(latencies, to-from)
			}
			slices.Sort(latencies)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(latencies[len(latencies)/2].Microseconds()), "µs/median")
			b.ReportMetric(float64(latencies[len(latencies)*9/10].Microseconds()), "µs/p90")
		})
	}
}

func init() {
	helpers["wait and tell"] = func(in *bufio.Reader, args []string) error {
		l := fasteners.NewInterProcessLock(args[0])
		for {
			if _, err := in.ReadString('\n'); err != nil {
				return nil
			}
			fmt.Println("waiting")
			var err error
			switch args[1] {
			case "deadline":
				ctx, cancel := context.WithTimeout(background, time.Hour)
				err = l.Acquire(ctx)
				cancel()
			case "blocked":
				err = l.Acquire(background)
			default:
				for ok := false; !ok && err == nil; {
					if ok, err = l.TryAcquire(); !ok {
						time.Sleep(10 * time.Millisecond)
					}
				}
			}
			now := clock()
			if err == nil {
				err = l.Release()
			}
			if err != nil {
				return err
			}
			fmt.Println(now)
		}
	}
}

// clock is the same in all processes, and finer than that of package time.
func clock() time.Duration {
	var now, frequency int64
	queryPerformance.Call(uintptr(unsafe.Pointer(&now)))
	queryFrequency.Call(uintptr(unsafe.Pointer(&frequency)))
	return time.Duration(float64(now) / float64(frequency) * float64(time.Second))
}

var (
	kernel32              = windows.NewLazySystemDLL("kernel32.dll")
	getProcessHandleCount = kernel32.NewProc("GetProcessHandleCount")
	queryPerformance      = kernel32.NewProc("QueryPerformanceCounter")
	queryFrequency        = kernel32.NewProc("QueryPerformanceFrequency")
)

// resources returns what this process has.
func resources(path string) usage {
	u := usage{goroutines: runtime.NumGoroutine()}
	var count uint32
	getProcessHandleCount.Call(uintptr(windows.CurrentProcess()), uintptr(unsafe.Pointer(&count)))
	u.descriptors = int(count)

	// Nothing lists the handles of a process, but they are small multiples of four. Those
	// through which nothing could be read are of somebody who looks at the file.
	if lock, err := os.Open(path); err == nil {
		defer lock.Close()
		var want, got windows.ByHandleFileInformation
		windows.GetFileInformationByHandle(windows.Handle(lock.Fd()), &want)
		for h := windows.Handle(4); h < 1<<14; h += 4 {
			if windows.GetFileInformationByHandle(h, &got) == nil &&
				got.FileIndexHigh == want.FileIndexHigh && got.FileIndexLow == want.FileIndexLow &&
				windows.ReadFile(h, nil, new(uint32), nil) == nil && h != windows.Handle(lock.Fd()) {
				u.locked++
			}
		}
	}

	snapshot, err := windows.CreateToolhelp32Snapshot(windows.TH32CS_SNAPTHREAD, 0)
	if err != nil {
		return u
	}
	defer windows.CloseHandle(snapshot)
	entry := windows.ThreadEntry32{Size: uint32(unsafe.Sizeof(windows.ThreadEntry32{}))}
	for err = windows.Thread32First(snapshot, &entry); err == nil; err = windows.Thread32Next(snapshot, &entry) {
		if entry.OwnerProcessID == windows.GetCurrentProcessId() {
			u.threads++
		}
	}
	return u
}
