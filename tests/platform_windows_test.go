package tests

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
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

	restWherePolling = time.Duration(0) // a release wakes a process that polls
)

// Every form of a path that names the file is the same lock.
func TestPathForms(t *testing.T) {
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
		{"relative to the volume", path, rest},
		{"relative to the directory of the volume", path, volume + "Lock"},
		{"trailing dot", path, path + "."},
		{"trailing space", path, path + " "},
		{"long", long, `\\?\` + long},
		{"long with slashes", long, filepath.ToSlash(long)},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, a := range variants(test.path) {
				for _, b := range variants(test.other) {
					checkExclusion(t, a, b)
				}
			}
			startHolder(t, test.path, "exclusive")
			reader(test.other).mustTry(t, false)
		})
	}

	t.Run("long only with the current directory", func(t *testing.T) {
		t.Chdir(deep)
		checkExclusion(t, exclusive(relative), writer(long))
	})
	t.Run("network", func(t *testing.T) {
		share := `\\localhost\` + volume[:1] + "$" + rest
		if _, err := os.Stat(share); err != nil {
			t.Skipf("no file server: %v", err)
		}
		checkExclusion(t, exclusive(path), writer(share))
	})
}

// Names of devices, streams and pipes, and names that are invalid, are refused, although some of
// them look like names of files. Nothing is created.
func TestNotFiles(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, nil, 0o666))
	for _, test := range []struct {
		path   string
		target error // nil if the error depends on the system
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
		{dir + `\missing\.`, fs.ErrInvalid},
		{dir + `\missing\..`, syscall.EISDIR}, // to Windows that is dir
		{file + `\`, nil},
		{dir + `\*`, windows.ERROR_INVALID_NAME},
		{dir + `\a|b`, windows.ERROR_INVALID_NAME},
		{`\\.\pipe\fasteners\missing`, nil},
		{`\\localhost\missing\lock`, nil},
		{`\\?\UNC\localhost\missing\lock`, nil},
		{"CON", nil}, // there may be no console
		{"CONIN$", nil},
		{dir + `\CON`, nil},
		{`\\.\COM77`, nil},
	} {
		t.Run(test.path, func(t *testing.T) {
			if test.target != nil {
				checkRefused(t, test.path, test.target)
				return
			}
			for _, v := range variants(test.path) {
				ok, err := v.try()
				if ok || err == nil {
					t.Errorf("trying to acquire the %s lock: %v, %v", v.name, ok, err)
				}
				t.Log(err)
			}
		})
	}
	entries, err := os.ReadDir(dir)
	must(t, err)
	if len(entries) != 1 {
		t.Errorf("files or directories were created: %v", entries)
	}

	// In an extended path such a name is that of a file.
	null := `\\?\` + dir + `\NUL`
	checkExclusion(t, exclusive(null), writer(null))
	must(t, os.Remove(null))
}

// Readers can lock a file that they may not write.
func TestReadOnlyFile(t *testing.T) {
	path := lockPath(t)
	reader(path, fasteners.WithFileMode(0o644)).mustTry(t, true) // which makes no difference
	must(t, os.Chmod(path, 0o444))
	t.Cleanup(func() { os.Chmod(path, 0o666) }) // so that Wine can remove it
	if f, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
		f.Close()
		t.Skip("a read-only file can be written here: Wine, run by root")
	}
	for range 2 {
		for _, v := range variants(path) {
			if v.shared {
				v.mustTry(t, true)
				v.mustAcquire(t)
				v.mustRelease(t)
			} else {
				checkError(t, v.acquire(background), "acquire", path, fs.ErrPermission)
			}
		}
	}

	// So can they while a writer has the file open for writing.
	must(t, os.Chmod(path, 0o666))
	w := writer(path)
	w.mustAcquire(t)
	must(t, os.Chmod(path, 0o444))
	r := reader(path)
	done := r.goAcquire(t, background)
	w.mustRelease(t)
	must(t, <-done)
	r.mustRelease(t)
}

// While a lock is held or waited for, the file cannot be removed, moved or replaced. Afterwards it
// can.
func TestRemovalWhileHeld(t *testing.T) {
	for _, variant := range variantNames {
		t.Run(variant, func(t *testing.T) {
			path := lockPath(t)
			must(t, os.WriteFile(path+".new", nil, 0o666))
			checkProtected := func(when string) {
				t.Helper()
				if os.Remove(path) == nil || os.Rename(path, path+".old") == nil || os.Rename(path+".new", path) == nil {
					t.Errorf("%s: the file can be removed, moved or replaced", when)
				}
			}
			v := variantNamed(path, variant)
			v.mustAcquire(t)
			checkProtected("while the lock is held")
			v.mustRelease(t)

			p := startHolder(t, path, "exclusive")
			done := v.goAcquire(t, cancelable(t))
			checkProtected("while another process holds the lock, and a goroutine waits")
			p.kill()
			must(t, <-done)
			checkProtected("while the former waiter holds the lock")
			v.mustRelease(t)

			must(t, os.Rename(path+".new", path))
			v.mustTry(t, true)
			must(t, os.Remove(path))
		})
	}
}

// A lock of another program on the first byte, as of Python's fasteners, excludes ours.
func TestLockOfAnotherProgram(t *testing.T) {
	path := lockPath(t)
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666) // as Python's fasteners does
	must(t, err)
	defer f.Close()
	h := windows.Handle(f.Fd())
	try := func(flags uint32) error {
		return windows.LockFileEx(h, flags|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, new(windows.Overlapped))
	}
	unlock := func() { must(t, windows.UnlockFileEx(h, 0, 1, 0, new(windows.Overlapped))) }

	for _, v := range variants(path) {
		for _, flags := range []uint32{0, windows.LOCKFILE_EXCLUSIVE_LOCK} {
			bothShared := v.shared && flags == 0
			must(t, try(flags))
			v.mustTry(t, bothShared)
			if bothShared {
				unlock()
				v.mustAcquire(t)
			} else {
				// The waiter has to poll, as the other program wakes nobody.
				done := v.goAcquire(t, cancelable(t))
				unlock()
				must(t, <-done)
			}
			switch err := try(flags); {
			case bothShared && err == nil:
				unlock()
			case bothShared || err != windows.ERROR_LOCK_VIOLATION:
				t.Errorf("lock of the other program while our %s lock is held: %v", v.name, err)
			}
			v.mustRelease(t)
		}
	}
}

var (
	kernel32                  = windows.NewLazySystemDLL("kernel32.dll")
	getProcessHandleCount     = kernel32.NewProc("GetProcessHandleCount")
	queryPerformanceCounter   = kernel32.NewProc("QueryPerformanceCounter")
	queryPerformanceFrequency = kernel32.NewProc("QueryPerformanceFrequency")
)

// monotonicClock is the same clock in all processes, and has a higher resolution than package time.
func monotonicClock() time.Duration {
	var now, frequency int64
	queryPerformanceCounter.Call(uintptr(unsafe.Pointer(&now)))
	queryPerformanceFrequency.Call(uintptr(unsafe.Pointer(&frequency)))
	return time.Duration(float64(now) / float64(frequency) * float64(time.Second))
}

// cpuTime returns how long this process has been running on a processor.
func cpuTime() time.Duration {
	var creation, exit, kernel, user windows.Filetime
	_ = windows.GetProcessTimes(windows.CurrentProcess(), &creation, &exit, &kernel, &user)
	ticks := func(f windows.Filetime) int64 { return int64(f.HighDateTime)<<32 | int64(f.LowDateTime) }
	return time.Duration(ticks(kernel)+ticks(user)) * 100
}

// resources returns what this process uses.
func resources(path string) usage {
	u := usage{goroutines: runtime.NumGoroutine(), lockFile: countHandles(path)}
	var count uint32
	getProcessHandleCount.Call(uintptr(windows.CurrentProcess()), uintptr(unsafe.Pointer(&count)))
	u.descriptors = int(count)
	return u
}

// countHandles returns how many handles of the file this process has. Windows does not list the
// handles of a process, but they are small multiples of four. Handles that cannot be read belong to
// a goroutine that looks at the file without locking it.
func countHandles(path string) (n int) {
	lock, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer lock.Close()
	var want, got windows.ByHandleFileInformation
	windows.GetFileInformationByHandle(windows.Handle(lock.Fd()), &want)
	for h := windows.Handle(4); h < 1<<14; h += 4 {
		if windows.GetFileInformationByHandle(h, &got) == nil &&
			got.FileIndexHigh == want.FileIndexHigh && got.FileIndexLow == want.FileIndexLow &&
			windows.ReadFile(h, nil, new(uint32), nil) == nil && h != windows.Handle(lock.Fd()) {
			n++
		}
	}
	return n
}
