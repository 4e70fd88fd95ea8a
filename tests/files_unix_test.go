//go:build unix

package tests

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/go-fasteners/fasteners"
)

// A program that has closed some of its standard streams, as one does that becomes a daemon,
// locks files. What it does with these numbers afterwards does the lock no harm: it may write
// to them, and replace them by others.
func TestStandardStreamsClosed(t *testing.T) {
	all := []string{"0", "012", "1", "2", "12"}
	if testing.Short() {
		all = all[:2]
	}
	for _, closed := range all {
		for _, op := range lowOps {
			if op.inheritable && locksAreProcessOwned() {
				continue
			}
			t.Run(closed+"/"+op.name, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				cmd := helperCommand(lowHelper, filepath.Join(dir, "lock"), closed, op.name)
				report, err := os.Create(filepath.Join(dir, "report"))
				must(t, err)
				defer report.Close()
				cmd.ExtraFiles = []*os.File{report}
				err = cmd.Run()
				text, readErr := os.ReadFile(report.Name())
				must(t, readErr)
				if err != nil || string(text) != "done" {
					t.Errorf("%v: %s", err, text)
				}
			})
		}
	}
}

// A lowOp opens the lock file, once its second function is called, and holds the lock.
type lowOp struct {
	name        string
	inheritable bool // only where locks can be inherited
	prepare     func(path string) error
	run         func(path string) error
}

var (
	lowHeld *fasteners.InterProcessReaderWriterLock // by prepare
	lowFile *os.File
)

func lowHold(path string) error {
	lowHeld = fasteners.NewInterProcessReaderWriterLock(path)
	return lowHeld.AcquireWriteLock(background)
}

var lowOps = []lowOp{
	{"create", false, nil, func(path string) error { return exclusive(path).acquire(background) }},
	{"create with a mode", false, nil, func(path string) error {
		return exclusive(path, fasteners.WithFileMode(0o666)).acquire(background)
	}},
	{"create in a new directory", false, func(path string) error { return os.Mkdir(path+".d", 0o777) },
		func(path string) error {
			if err := exclusive(filepath.Join(path+".d", "a", "b", "lock")).acquire(background); err != nil {
				return err
			}
			return os.Link(filepath.Join(path+".d", "a", "b", "lock"), path)
		}},
	{"open", false, func(path string) error { return os.WriteFile(path, nil, 0o666) },
		func(path string) error { return exclusive(path).acquire(background) }},
	{"open for a reader", false, func(path string) error { return os.WriteFile(path, nil, 0o666) },
		func(path string) error { return reader(path).acquire(background) }},
	{"open after a replacement", false, func(path string) error {
		return errors.Join(exclusive(path).hold(background), os.Remove(path), os.WriteFile(path, nil, 0o666))
	}, func(path string) error { return exclusive(path).acquire(background) }},
	{"open by another name", false, func(path string) error { return errors.Join(lowHold(path), os.Link(path, path+".2")) },
		func(path string) error {
			if ok, err := exclusive(path + ".2").try(); ok || err != nil {
				return fmt.Errorf("%t, %v", ok, err)
			}
			return nil
		}},
	{"holders while held", false, lowHold, func(path string) error {
		_, err := fasteners.NewInterProcessLock(path).Holders()
		return err
	}},
	{"duplicate", true, lowHold, func(path string) (err error) {
		lowFile, err = lowHeld.File()
		return err
	}},
	{"given", true, func(path string) (err error) {
		lowFile, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
		return err
	}, func(path string) error { return exclusive(path, fasteners.WithFile(lowFile)).acquire(background) }},
}

// lowHelper has a file to report to as its descriptor 3. Its arguments are the path of the lock
// file, the descriptors to close, and what to do.
var lowHelper = newHelper("low descriptors", func(_ *bufio.Reader, args []string) error {
	report := os.NewFile(3, "report")
	err := useLow(args[0], args[1], args[2])
	if err == nil {
		_, err = report.WriteString("done")
	} else {
		fmt.Fprint(report, err)
	}
	return err
})

func useLow(path, closed, name string) error {
	op := lowOps[slices.IndexFunc(lowOps, func(op lowOp) bool { return op.name == name })]
	if op.prepare != nil {
		if err := op.prepare(path); err != nil {
			return err
		}
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	other := helperCommand(tryHelper, path, "write") // its pipes are opened before
	other.Env = append(other.Env, "GORACE=atexit_sleep_ms=0")
	var out, errOut strings.Builder
	other.Stdout, other.Stderr = &out, &errOut

	for _, c := range closed {
		if err := unix.Close(int(c - '0')); err != nil {
			return err
		}
	}
	if err := op.run(path); err != nil {
		return err
	}
	lock, err := os.Stat(path)
	if err != nil {
		return err
	}
	for _, c := range closed {
		fd := int(c - '0')
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && uint64(st.Ino) == uint64(lock.Sys().(*syscall.Stat_t).Ino) {
			return fmt.Errorf("the lock file is open as descriptor %d", fd)
		}
		_, _ = unix.Write(fd, []byte("x"))
		if err := unix.Dup2(int(null.Fd()), fd); err != nil {
			return err
		}
	}
	if lock, err = os.Stat(path); err != nil || lock.Size() > 0 {
		return fmt.Errorf("the lock file has %d bytes, %v", lock.Size(), err)
	}
	if err := other.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, errOut.String())
	}
	if out.String() != "false\n" {
		return fmt.Errorf("the lock is not held: another process has tried it: %s", out.String())
	}
	runtime.KeepAlive(null)
	runtime.KeepAlive(lowHeld)
	runtime.KeepAlive(lowFile)
	return nil
}

// Nor do the descriptors of the runtime, which a lock makes it open if nothing has before, take the
// numbers of standard streams.
func TestRuntimeAfterStreamsClosed(t *testing.T) {
	path := lockPath(t)
	cmd := helperCommand(runtimeHelper, path)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

var runtimeHelper = newHelper("runtime", func(_ *bufio.Reader, args []string) error {
	if err := unix.Close(0); err != nil {
		return err
	}
	if err := exclusive(args[0]).hold(background); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(0, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFCHR { // as of /dev/null
		return fmt.Errorf("something of mode %o is open as standard input", st.Mode)
	}
	return nil
})

// tree returns the names of all that is in dir, below it too, without links.
func tree(t *testing.T, dir string) (names []string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && path != dir && d.Type()&fs.ModeSymlink == 0 {
			name, _ := filepath.Rel(dir, path)
			if d.IsDir() {
				name += "/"
			}
			names = append(names, name)
		}
		return err
	}))
	return names
}

// Acquire creates what the path itself names, and no more: not the target of a link that points to
// nothing, which another user may have made, and no directory that is above the file only if one
// reads the path as text.
func TestWhatIsCreated(t *testing.T) {
	long := strings.Repeat("x", 256)
	for _, test := range []struct {
		path    string
		target  error  // of the error, if there is one
		created string // names, by spaces
	}{
		{"lock", nil, "lock"},
		{"./lock", nil, "lock"},
		{"a/lock", nil, "a/ a/lock"},
		{"a/b/c/lock", nil, "a/ a/b/ a/b/c/ a/b/c/lock"},
		{"a//b///lock", nil, "a/ a/b/ a/b/lock"},
		{"a/./lock", nil, "a/ a/lock"},
		{"a/././b/lock", nil, "a/ a/b/ a/b/lock"},
		{"a/../lock", nil, "a/ lock"},
		{"a/../b/lock", nil, "a/ b/ b/lock"},
		{"link/lock", nil, "elsewhere/deep/lock"},
		{"link/a/lock", nil, "elsewhere/deep/a/ elsewhere/deep/a/lock"},
		{"link/../lock", nil, "elsewhere/lock"},
		{"link/../a/lock", nil, "elsewhere/a/ elsewhere/a/lock"},
		{"link/../../a/lock", nil, "a/ a/lock"},
		{"a/../link/../b/lock", nil, "a/ elsewhere/b/ elsewhere/b/lock"},
		{"tofile", nil, ""},
		{"tolink", nil, ""},

		{"nowhere", fs.ErrNotExist, ""},
		{"./nowhere", fs.ErrNotExist, ""},
		{"link/nowhere", fs.ErrNotExist, ""},
		{"tonowhere", fs.ErrNotExist, ""},
		{"nodir", fs.ErrNotExist, ""},
		{"nowhere/lock", fs.ErrNotExist, ""},
		{"nowhere/a/lock", fs.ErrNotExist, ""},
		{"nowhere/../lock", fs.ErrNotExist, ""},
		{"loop", syscall.ELOOP, ""},
		{"loop/lock", syscall.ELOOP, ""},
		{"loop/a/lock", syscall.ELOOP, ""},
		{"file/lock", syscall.ENOTDIR, ""},
		{"file/a/lock", syscall.ENOTDIR, ""},
		{"file/", syscall.ENOTDIR, ""},
		{"file/.", syscall.ENOTDIR, ""},
		{"file/..", syscall.ENOTDIR, ""},
		{"tofile/", syscall.ENOTDIR, ""},
		{".", syscall.EISDIR, ""},
		{"..", syscall.EISDIR, ""},
		{"/", syscall.EISDIR, ""},
		{"//", syscall.EISDIR, ""},
		{"link", syscall.EISDIR, ""},
		{"link/", syscall.EISDIR, ""},
		{"link/..", syscall.EISDIR, ""},
		{"elsewhere", syscall.EISDIR, ""},
		{"elsewhere//", syscall.EISDIR, ""},
		{"a/", fs.ErrInvalid, ""},
		{"a//", fs.ErrInvalid, ""},
		{"a/.", fs.ErrInvalid, ""},
		{"a/..", fs.ErrInvalid, ""},
		{"a/b/", fs.ErrInvalid, ""},
		{"a/../b/", fs.ErrInvalid, ""},
		{"nowhere/", fs.ErrInvalid, ""},
		{"", fs.ErrInvalid, ""},
		{"a\x00b", fs.ErrInvalid, ""},
		{"a\x00/lock", fs.ErrInvalid, ""},
		{long, syscall.ENAMETOOLONG, ""},
		{long + "/lock", syscall.ENAMETOOLONG, ""},
		{"elsewhere/" + long + "/lock", syscall.ENAMETOOLONG, ""},
		{"elsewhere/" + strings.Repeat("x/", 3000) + "lock", syscall.ENAMETOOLONG, ""},
	} {
		for _, mode := range []fs.FileMode{0, 0o666} {
			t.Run(fmt.Sprintf("%.30q, %o", test.path, mode), func(t *testing.T) {
				dir := t.TempDir()
				t.Chdir(dir)
				must(t, os.MkdirAll("elsewhere/deep", 0o777))
				must(t, os.WriteFile("file", nil, 0o666))
				for name, target := range map[string]string{
					"link": "elsewhere/deep", "tofile": "file", "tolink": "tofile", "loop": "loop",
					"nowhere": "missing", "elsewhere/deep/nowhere": "missing", "tonowhere": "nowhere",
					"nodir": filepath.Join(dir, "missing", "missing"),
				} {
					must(t, os.Symlink(target, name))
				}
				before := tree(t, dir)
				var opts []fasteners.Option
				if mode != 0 {
					opts = append(opts, fasteners.WithFileMode(mode))
				}
				if test.target != nil {
					checkRefused(t, test.path, test.target, opts...)
				} else {
					for _, v := range variants(test.path, opts...) {
						v.mustTry(t, true)
						v.mustAcquire(t)
						v.mustRelease(t)
					}
				}
				created := slices.DeleteFunc(tree(t, dir), func(name string) bool { return slices.Contains(before, name) })
				if got := strings.Join(created, " "); got != test.created {
					t.Errorf("created are %q, want %q", got, test.created)
				}
			})
		}
	}
}

// The error tells that a link points to nothing, and where.
func TestLinkToNothing(t *testing.T) {
	t.Chdir(t.TempDir())
	must(t, os.Symlink("target\n", "link"))
	for path, want := range map[string]string{
		"link":        `acquire link: a symbolic link to nothing, "target\n", which is not created: file does not exist`,
		"link/a/lock": `acquire link/a/lock: mkdir link: a symbolic link to nothing, "target\n", which is not created: file does not exist`,
	} {
		if err := exclusive(path).acquire(background); err == nil || err.Error() != want {
			t.Errorf("error is %v, want %s", err, want)
		}
	}
	must(t, os.WriteFile("target\n", nil, 0o666))
	for _, v := range variants("link") {
		checkExclusion(t, v, exclusive("target\n"))
	}
}

// A system of files that are no files refuses to create any, with an error that says that something
// does not exist, as if a directory were missing.
func TestDirectoryRefuses(t *testing.T) {
	for _, test := range []struct{ dir, op, path, text string }{
		{"/proc", "acquire", "/proc/fasteners-lock", "acquire /proc/fasteners-lock: no such file or directory"},
		{"/proc", "mkdir", "/proc/fasteners-a/lock",
			"acquire /proc/fasteners-a/lock: mkdir /proc/fasteners-a: no such file or directory"},
		{"/proc", "mkdir", "/proc/fasteners-a/b/c/lock",
			"acquire /proc/fasteners-a/b/c/lock: mkdir /proc/fasteners-a: no such file or directory"},
		{"/proc/self/fd", "mkdir", "/proc/self/fd/a/lock",
			"acquire /proc/self/fd/a/lock: mkdir /proc/self/fd/a: no such file or directory"},
	} {
		if runtime.GOOS != "linux" {
			t.Skip("only Linux is known to have such directories")
		}
		checkRefused(t, test.path, fs.ErrNotExist)
		if err := exclusive(test.path).acquire(background); err == nil || err.Error() != test.text {
			t.Errorf("error is %v, want %s", err, test.text)
		}
	}
}

// userHelper becomes another user, with the umask of its second argument, and tries to acquire
// the lock. It prints the outcome. Its arguments are the user, the umask, a path, the name of a
// variant, and a file mode, or 0.
var userHelper = newHelper("user", func(_ *bufio.Reader, args []string) error {
	var uid, umask, mode int
	if _, err := fmt.Sscanf(args[0]+" "+args[1]+" "+args[4], "%d %o %o", &uid, &umask, &mode); err != nil {
		return err
	}
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(uid), syscall.Setuid(uid)); err != nil {
		return err
	}
	syscall.Umask(umask)
	var opts []fasteners.Option
	if mode != 0 {
		opts = append(opts, fasteners.WithFileMode(fs.FileMode(mode)))
	}
	v := variantNamed(args[2], args[3], opts...)
	ok, err := v.try()
	if ok {
		err = v.release()
	}
	if err != nil {
		fmt.Printf("%t %t %v\n", errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist), err)
		return nil
	}
	fmt.Println(ok)
	return nil
})

// tryAs tries to acquire the lock as another user, and returns what that prints.
func tryAs(t *testing.T, uid int, umask, path, variant string, mode fs.FileMode) string {
	t.Helper()
	p := startHelper(t, userHelper, fmt.Sprint(uid), umask, path, variant, fmt.Sprintf("%o", mode))
	line := p.line()
	p.kill()
	return line
}

// openDir returns a new directory that other users may search, which that of t.TempDir is not in.
func openDir(t *testing.T, mode fs.FileMode) string {
	t.Helper()
	if os.Getuid() != 0 {
		skipOrFail(t, "the rights of root, to become other users")
	}
	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	must(t, os.Chmod(dir, mode))
	return dir
}

const alice, bob = 65534, 65533 // the first has a name

// Two users share a lock if whoever creates the file gives it the mode for that. Otherwise the
// second user is told what is in the way.
func TestTwoUsers(t *testing.T) {
	refused := func(mode string) func(path string) string {
		return func(path string) string {
			return "true false acquire " + path + ": permission denied: the lock file belongs to nobody and has mode " + mode
		}
	}
	works := func(string) string { return "true" }
	for _, test := range []struct {
		umask       string // of alice, who creates the file
		mode        fs.FileMode
		read, write func(path string) string // what bob gets
	}{
		{"000", 0, works, works},
		{"022", 0, works, refused("0644")},
		{"077", 0, refused("0600"), refused("0600")},
		{"0377", 0, refused("0400"), refused("0400")},
		{"022", 0o666, works, works},
		{"077", 0o666, works, works},
		{"0377", 0o666, works, works},
		{"0777", 0o666, works, works},
		{"000", 0o644, works, refused("0644")},
		{"077", 0o644, works, refused("0644")},
		{"000", 0o600, refused("0600"), refused("0600")},
		{"000", 0o660, refused("0660"), refused("0660")},
	} {
		for _, dirMode := range []fs.FileMode{0o777, 0o777 | fs.ModeSticky, 0o777 | fs.ModeSetgid} {
			t.Run(fmt.Sprintf("umask %s/mode %o/%v", test.umask, test.mode, dirMode), func(t *testing.T) {
				t.Parallel()
				path := filepath.Join(openDir(t, dirMode), "lock")
				if got := tryAs(t, alice, test.umask, path, "write", test.mode); got != "true" {
					t.Fatalf("alice gets %s", got)
				}
				for variant, want := range map[string]string{
					"read": test.read(path), "write": test.write(path), "exclusive": test.write(path),
				} {
					if got := tryAs(t, bob, "022", path, variant, 0); got != want {
						t.Errorf("%s: bob gets %s, want %s", variant, got, want)
					}
				}
			})
		}
	}
}

// One who may not create the file is told whose directory it is.
func TestDirectoryOfAnotherUser(t *testing.T) {
	dir := openDir(t, 0o755)
	for path, step := range map[string]string{
		filepath.Join(dir, "lock"):      "",
		filepath.Join(dir, "a", "lock"): "mkdir " + filepath.Join(dir, "a") + ": ",
	} {
		want := "true false acquire " + path + ": " + step + "permission denied: the directory belongs to root and has mode 0755"
		if got := tryAs(t, bob, "022", path, "write", 0); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// A user makes a link to where only root may create files, and root, who acquires the lock, creates
// none.
func TestLinkOfAnotherUser(t *testing.T) {
	dir := openDir(t, 0o777|fs.ModeSticky)
	target := filepath.Join(t.TempDir(), "etc-profile")
	path := filepath.Join(dir, "lock")
	must(t, os.Symlink(target, path))
	must(t, os.Lchown(path, alice, -1))
	for _, mode := range []fs.FileMode{0, 0o666} {
		for _, variant := range variantNames {
			got := tryAs(t, 0, "022", path, variant, mode)
			if !strings.HasPrefix(got, "false true") && !strings.HasPrefix(got, "true false") { // see fs.protected_symlinks
				t.Errorf("root gets %s", got)
			}
			if _, err := os.Lstat(target); err == nil {
				t.Fatal("root has created the file")
			}
		}
	}
}

// Users create the file at the same time, with different ideas of its mode: all of them get the
// lock if all give it a mode with which they can share it.
func TestUsersCreateTogether(t *testing.T) {
	for range 10 {
		path := filepath.Join(openDir(t, 0o777|fs.ModeSticky), "lock")
		var all []*process
		for i := range 8 {
			all = append(all, startHelper(t, userHelper, fmt.Sprint(alice-i%2), "077", path, "read", "666"))
		}
		for _, p := range all {
			p.expect("true")
			p.kill()
		}
	}
}

// A mode with which the owner could not open the file again is refused.
func TestInvalidFileMode(t *testing.T) {
	canceled, cancel := context.WithCancel(background)
	cancel()
	for mode := range fs.FileMode(0o1000) {
		err := exclusive("x", fasteners.WithFileMode(mode)).acquire(canceled)
		if valid := mode&0o600 == 0o600; errors.Is(err, fs.ErrInvalid) == valid {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
	if err := exclusive("x", fasteners.WithFileMode(0o444)).acquire(background); err == nil ||
		err.Error() != "acquire x: file mode 0444, with which the owner cannot open the file: invalid argument" {
		t.Error(err)
	}
}
